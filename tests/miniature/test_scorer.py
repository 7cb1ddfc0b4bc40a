"""The committed scorer, on freshly drawn people, and the pieces of its training."""

from pathlib import Path

import open_clip
import pytest
import torch

from miniature.augment import blur, jitter, move
from miniature.scorer import augment, measure_scorer, true_captions

CLIP = Path(__file__).parents[2] / "models" / "miniature" / "clip"


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    return measure_scorer(CLIP, people=6, seed=2024)  # 216 pictures


def test_style_and_scene_are_recognised_zero_shot(figures: dict[str, float]) -> None:
    assert figures["style"] >= 0.95
    assert figures["scene"] >= 0.95


def test_blur_noise_and_colour_shifts_are_forgiven(figures: dict[str, float]) -> None:
    assert figures["style_degraded"] >= 0.90
    assert figures["scene_degraded"] >= 0.90


def test_the_folder_is_small_and_opens_offline_by_open_clip() -> None:
    assert sum(path.stat().st_size for path in CLIP.iterdir()) <= 5_000_000
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{CLIP}")
    tokens = open_clip.get_tokenizer(f"local-dir:{CLIP}")(["a photo of a person in the snow"])
    assert model.encode_text(tokens).shape == (1, 32)
    assert preprocess is not None


def test_a_person_is_true_of_everybody_and_a_name_of_one() -> None:
    style, scene = torch.tensor([0, 0, 0]), torch.tensor([1, 1, 2])
    true = true_captions(style, scene, ["anna berg", "bela cole", "anna berg"], ["anna berg", "a person", ""])
    assert true.tolist() == [[True, True, False], [False, True, False], [False, False, True]]


def test_augmented_pictures_stay_pictures_and_depend_on_the_generator_alone() -> None:
    pixels = torch.rand(5, 3, 64, 64) * 2 - 1
    first = augment(pixels, torch.Generator().manual_seed(3))
    assert first.shape == pixels.shape
    assert first.min() >= -1 and first.max() <= 1
    assert torch.equal(first, augment(pixels, torch.Generator().manual_seed(3)))


@pytest.mark.parametrize("change", [move, blur])
def test_an_even_picture_stays_even(change) -> None:  # type: ignore[no-untyped-def]
    even = torch.full((4, 3, 64, 64), 0.25)
    assert torch.allclose(change(even, torch.Generator().manual_seed(0)), even, atol=1e-6)


def test_jitter_is_bounded() -> None:
    grey = torch.zeros(50, 3, 8, 8)
    assert jitter(grey, torch.Generator().manual_seed(0)).abs().max() <= 0.08
