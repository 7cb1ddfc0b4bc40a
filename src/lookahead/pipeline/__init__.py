"""The trained encoder for people: portraits and prompts in, pictures out."""

from lookahead.pipeline.pipeline import LookaheadPipeline

__all__ = ["LookaheadPipeline"]
