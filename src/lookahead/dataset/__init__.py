"""Synthesis of the training pictures: prompts, drawing, face checks, features and pairs."""
