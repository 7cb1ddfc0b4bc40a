"""The command's work: all files or none, and what the pictures tell of themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookahead.config import World, with_overrides
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.pipeline import LookaheadPipeline
from lookahead.pipeline.personalize import GRID, Request, find_encoder, personalize

PROMPTS = ("a photo of a person in the snow", "a comic drawing of a person on the beach")


def request_of(portraits: list[Path]) -> Request:
    return Request(tuple(portraits[:1]), PROMPTS, "an oil painting", 2, 7, False, {"adapter_scale": 0.5})


def test_a_grid_and_every_picture_with_its_origin(
    world: World, encoder: Path, portraits: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "out"
    personalize(world, encoder, request_of(portraits), out)
    assert {path.name for path in out.iterdir()} == {GRID, "00-7.png", "00-8.png", "01-7.png", "01-8.png"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    told = Image.open(out / "01-8.png").text  # type: ignore[attr-defined]
    assert told["prompt"] == PROMPTS[1] and told["seed"] == "8" and told["negative_prompt"] == "an oil painting"
    assert json.loads(told["settings"])["adapter_scale"] == 0.5 and told["encoder"] == "tuned"
    assert "torch" in told["versions"] and "generated" in told["Software"]
    assert str(tmp_path) not in str(told) and told["portraits"] == "0.jpg"
    with Image.open(out / GRID) as grid:
        assert grid.size == (3 * 64, 2 * 64)
    again = LookaheadPipeline(world.checkpoints, with_overrides(world.personalize, {"adapter_scale": 0.5}), encoder)
    with Image.open(portraits[0]) as photo, Image.open(out / "01-8.png") as ours:
        alone = np.asarray(again(photo, PROMPTS[1], "an oil painting", seed=8)[0], dtype=np.int16)
        assert abs(np.asarray(ours, dtype=np.int16) - alone).max() <= 1  # another batch size rounds otherwise


def test_interrupted_it_leaves_nothing(
    world: World, portraits: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Image.Image, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        personalize(world, None, request_of(portraits), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_never_touched(world: World, portraits: list[Path], tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="not empty"):
        personalize(world, None, request_of(portraits), tmp_path)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"mine"


def test_the_trained_encoder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_encoder("miniature", None) is None
    trained = Path("runs/miniature/train/lookahead/encoder")
    trained.mkdir(parents=True)
    (trained / ADAPTER_FILE).touch()
    assert find_encoder("miniature", None) == trained
    with pytest.raises(InputError, match="holds no encoder"):
        find_encoder("miniature", tmp_path)
