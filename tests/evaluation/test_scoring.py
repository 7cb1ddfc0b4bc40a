"""Zero-shot style and scene by embeddings whose answers are known."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from lookahead.config import Checkpoints
from lookahead.evaluation.scoring.scores import Texts, embed_pictures, embed_texts, score
from lookahead.world import open_scorer


def _texts() -> Texts:
    """Two styles and three scenes on axes of their own; a prompt points along both."""
    axes = torch.eye(5)
    prompts = F.normalize(axes[:2, None] + axes[None, 2:], dim=-1)
    return Texts(prompts, axes[:2], axes[2:])


def test_pictures_on_their_prompt_are_right() -> None:
    texts, style, scene = _texts(), torch.tensor([0, 1, 1]), torch.tensor([2, 0, 1])
    scores = score(texts.prompts[style, scene], texts, style, scene)
    assert scores["clip_t"].tolist() == pytest.approx([1, 1, 1])
    assert scores["prompt"].tolist() == [1, 1, 1]


def test_style_and_scene_fail_apart() -> None:
    texts = _texts()
    pictures = texts.prompts[torch.tensor([1, 0, 1]), torch.tensor([0, 2, 2])]
    scores = score(pictures, texts, torch.tensor([0, 0, 0]), torch.tensor([0, 0, 0]))
    assert scores["style_right"].tolist() == [0, 1, 0]
    assert scores["scene_right"].tolist() == [1, 0, 0]
    assert scores["prompt"].tolist() == [0, 0, 0]
    assert scores["clip_t"].tolist() == pytest.approx([0.5, 0.5, 0.0])


def test_classes_are_means_over_the_other_attribute(tiny: Checkpoints) -> None:
    scorer = open_scorer(tiny)
    texts = embed_texts(
        scorer,
        [
            ["a photo on the beach", "a photo in the snow"],
            ["an oil painting on the beach", "an oil painting in the snow"],
        ],
    )
    torch.testing.assert_close(texts.styles, F.normalize(texts.prompts.mean(1), dim=-1))
    torch.testing.assert_close(texts.scenes, F.normalize(texts.prompts.mean(0), dim=-1))
    torch.testing.assert_close(texts.prompts.norm(dim=-1), torch.ones(2, 2))


def test_pictures_of_any_size_are_embedded(tiny: Checkpoints) -> None:
    embeddings = embed_pictures(open_scorer(tiny), [Image.new("RGB", size, "teal") for size in ((64, 64), (200, 90))])
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(2))
