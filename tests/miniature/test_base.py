"""The committed base: the pipeline reads captions as the training did."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lookahead.config import read_params
from lookahead.world import Pipeline, open_pipeline
from miniature.base import embed_prompts
from miniature.words import SCENES, STYLES, caption

CAPTIONS = [caption(style, scene, "anna abel") for style in STYLES for scene in SCENES]


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return open_pipeline(read_params().worlds["miniature"].checkpoints)


def test_the_pipelines_prompts_are_the_trainings(pipe: Pipeline) -> None:
    """The two tokenizers once numbered words differently, and every picture was drawn from a garbled caption."""
    tokens, _, pooled, _ = pipe.encode_prompt(
        CAPTIONS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    trained = embed_prompts(Path("models/miniature/base"), CAPTIONS)
    torch.testing.assert_close(tokens, trained.tokens, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pooled, trained.pooled, atol=1e-4, rtol=1e-4)


def test_an_empty_prompt_is_zeros_as_where_captions_were_dropped(pipe: Pipeline) -> None:
    _, tokens, _, pooled = pipe.encode_prompt(
        CAPTIONS[:1], device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    assert not tokens.any() and not pooled.any()
