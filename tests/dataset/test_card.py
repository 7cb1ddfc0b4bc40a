"""The card says what the metrics say, and retrieval is what counting by hand gives."""

from pathlib import Path

import numpy as np
from PIL import Image

from lookahead.artifacts import read_json
from lookahead.config import Generate
from lookahead.dataset.card import card_text
from lookahead.dataset.consistency import Sight, Verdict, unit
from lookahead.dataset.retrieval import rank_one

A, B, C = np.eye(3, dtype=np.float32)
KEPT = Verdict(1.0, 0.0, "")


def test_a_held_back_picture_finds_its_person() -> None:
    photos = [Sight(7, "photo", A), Sight(7, "photo", A), Sight(9, "photo", B), Sight(9, "photo", B)]
    drawings = [Sight(7, "oil", unit(A + 0.5 * B)), Sight(9, "oil", unit(A + 0.5 * B))]
    sights = photos + drawings
    assert rank_one(sights, [KEPT] * len(sights), "photo") == {"photos": 1.0, "stylised": 0.5}


def test_a_photo_does_not_find_itself() -> None:
    """Its person's other photo shows somebody else, so that only the photo itself could be the match."""
    sights = [Sight(0, "photo", A), Sight(0, "photo", C), Sight(1, "photo", unit(A + C)), Sight(1, "photo", A)]
    assert rank_one(sights, [KEPT] * 4, "photo")["photos"] < 1


def test_dropped_pictures_count_nowhere() -> None:
    sights = [Sight(0, "photo", A), Sight(0, "photo", A), Sight(1, "photo", B), Sight(1, "oil", A)]
    verdicts = [KEPT, KEPT, KEPT, Verdict(0.0, 1.0, "unlike")]
    assert rank_one(sights, verdicts, "photo")["stylised"] == 0.0


def test_nothing_kept_is_no_error() -> None:
    assert rank_one([], [], "photo") == {"photos": 0.0, "stylised": 0.0}


def test_the_card_lies_beside_the_dataset_with_figures_licences_and_pictures(dataset: Path, settings: Generate) -> None:
    text, metrics = (dataset / "README.md").read_text(encoding="utf-8"), read_json(dataset / "metrics.json")
    assert f"{metrics['images']} pictures of {metrics['people']} people" in text
    assert all(f"- {model}: {licence}" in text for model, licence in settings.licences.items())
    assert all(f"| {style} |" in text for style in metrics["styles"])
    for name in ("samples.png", "histograms.png"):
        assert name in text
        with Image.open(dataset / name) as picture:
            picture.verify()
    assert set(metrics["rank_1"]) == {"photos", "stylised"}


def test_a_card_of_a_weak_generator_says_what_it_lacks(dataset: Path) -> None:
    metrics = read_json(dataset / "metrics.json")
    assert "lacks" not in card_text(metrics, {})
    metrics["kept"], metrics["dropped"]["no face"], metrics["styles"]["oil"]["kept"] = 0.4, 9, 0.1
    assert "in the style oil (10% kept); the commonest reason is: no face" in card_text(metrics, {})
