"""Evaluation: cells (an encoder, a sampler, a training seed) are drawn, scored, put into one table and contrasted."""
