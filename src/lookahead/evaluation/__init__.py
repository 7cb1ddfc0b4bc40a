"""Evaluation: pictures of people never seen, what recognisers and CLIP say of them, and intervals over people."""
