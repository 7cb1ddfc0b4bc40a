"""Tuning the encoder."""
