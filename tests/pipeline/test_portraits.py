"""Portraits that people bring: what is accepted, and what the refusal says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookahead.config import Checkpoints, read_params
from lookahead.errors import InputError
from lookahead.pipeline.portraits import FaceCheck, read_person, read_portrait, square_around
from tests.modules import ROOT
from tests.tiny_faces import save_detector


def test_a_portrait_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert read_portrait(tmp_path / "a.jpg").size == (20, 40)


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_what_is_no_picture_is_one_message(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "me.jpg"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"me\.jpg"):
        read_portrait(path)


def test_one_face_is_accepted(tiny_world: Checkpoints, portraits: list[Path]) -> None:
    accepted = read_person(portraits, FaceCheck(tiny_world, 0.2))
    assert [portrait.size for portrait in accepted] == [(64, 64)] * 3


def test_no_face_and_a_small_face_are_refused(tiny_world: Checkpoints, portraits: list[Path], tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "dark.png")
    with pytest.raises(InputError, match=r"dark\.png: no face is found"):
        read_person([tmp_path / "dark.png"], FaceCheck(tiny_world, 0.2))
    with pytest.raises(InputError, match=r"too small \(\d+% of the picture, at least 95%\)"):
        read_person(portraits, FaceCheck(tiny_world, 0.95))


def test_several_faces_are_refused(own_world: Checkpoints, portraits: list[Path]) -> None:
    save_detector(Path(own_world.faces.loss) / "detector.onnx", faces=2)
    with pytest.raises(InputError, match=r"0\.jpg: 2 faces are found; crop it"):
        read_person(portraits, FaceCheck(own_world, 0.2))


def test_the_miniature_accepts_its_own_portraits() -> None:
    checkpoints = read_params(ROOT / "params.yaml").worlds["miniature"].checkpoints
    place = {"loss": str(ROOT / checkpoints.faces.loss)}
    check = FaceCheck(checkpoints.model_copy(update={"faces": checkpoints.faces.model_copy(update=place)}), 0.2)
    for path in sorted((ROOT / "models/miniature/portraits/test").glob("00*/0.jpg")):
        portrait = read_portrait(path)
        assert check(portrait, str(path)).size == portrait.size


@pytest.mark.parametrize(("left", "expected"), [(0, 0), (45, 25), (100, 60)])
def test_the_square_follows_the_face(left: int, expected: int) -> None:
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 40, axis=0).repeat(3, axis=2)
    box = np.array([left - 5, 10, left + 5, 20, 1], dtype=np.float32)
    square = square_around(Image.fromarray(ramp), box)
    assert square.size == (40, 40) and square.getpixel((0, 0)) == (expected,) * 3
