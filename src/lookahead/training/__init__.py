"""Tuning the encoder: the step, the loop, exact resume."""
