"""The check of portraits: what is accepted, and what the refusal says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookahead.config import Checkpoints, read_params
from lookahead.errors import InputError
from lookahead.pipeline.personalize import FaceCheck, square_around
from lookahead.portraits import open_picture
from tests.modules import ROOT
from tests.tiny_faces import save_detector


def test_one_face_of_sufficient_size_is_accepted(tiny_world: Checkpoints, photos: list[Image.Image]) -> None:
    check = FaceCheck(tiny_world, 0.2)
    assert [check(photo, "photo").size for photo in photos] == [(64, 64)] * 3
    with pytest.raises(InputError, match=r"dark: no face is found"):
        check(Image.new("RGB", (64, 64)), "dark")
    with pytest.raises(InputError, match=r"too small \(\d+% of the picture, at least 95%\)"):
        FaceCheck(tiny_world, 0.95)(photos[0], "photo")


def test_several_faces_are_refused(own_world: Checkpoints, photos: list[Image.Image]) -> None:
    save_detector(Path(own_world.faces.loss) / "detector.onnx", faces=2)
    with pytest.raises(InputError, match=r"photo: 2 faces are found; crop it"):
        FaceCheck(own_world, 0.2)(photos[0], "photo")


def test_the_miniature_accepts_its_own_portraits() -> None:
    checkpoints = read_params(ROOT / "params.yaml").worlds["miniature"].checkpoints
    faces = checkpoints.faces.model_copy(update={"loss": str(ROOT / checkpoints.faces.loss)})
    check = FaceCheck(checkpoints.model_copy(update={"faces": faces}), 0.2)
    for path in sorted((ROOT / "models/miniature/portraits/test").glob("00*/0.jpg")):
        portrait = open_picture(path)
        assert check(portrait, str(path)).size == portrait.size


@pytest.mark.parametrize(("left", "expected"), [(0, 0), (45, 25), (100, 60)])
def test_the_square_follows_the_face(left: int, expected: int) -> None:
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 40, axis=0).repeat(3, axis=2)
    box = np.array([left - 5, 10, left + 5, 20, 1], dtype=np.float32)
    square = square_around(Image.fromarray(ramp), box)
    assert square.size == (40, 40) and square.getpixel((0, 0)) == (expected,) * 3
