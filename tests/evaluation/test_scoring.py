"""What is read of portraits' faces, and zero-shot style and scene by embeddings whose answers are known."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from lookahead.config import Checkpoints
from lookahead.errors import InputError
from lookahead.evaluation.pictures import in_batches
from lookahead.evaluation.scores import (
    FaceReader,
    Texts,
    embed_texts,
    read_others,
    read_references,
    score,
    similarity,
)
from lookahead.portraits import read_people
from lookahead.world import open_scorer


@pytest.fixture(scope="module")
def reader(tiny: Checkpoints) -> FaceReader:
    return FaceReader(tiny.faces)


def test_a_portrait_is_turned_upright_by_its_exif_data(reader: FaceReader, portraits: Path, tmp_path: Path) -> None:
    """A phone's photo: stored on its side, with a note how to turn it; scores and conditions see it upright."""
    shutil.copytree(portraits / "000", tmp_path / "upright" / "000")
    (tmp_path / "turned" / "000").mkdir(parents=True)
    for photo in (tmp_path / "upright" / "000").iterdir():
        image = Image.open(photo)
        image.save(photo.with_suffix(".png"))
        photo.unlink()
        exif = Image.Exif()
        exif[0x0112] = 6  # turn by 90 degrees
        image.rotate(90).save(tmp_path / "turned" / "000" / f"{photo.stem}.png", exif=exif)
    both = [read_people(tmp_path / name) for name in ("upright", "turned")]
    (one,), (other,) = (read_references(reader, people) for people in both)
    assert similarity(one, other, "report") == pytest.approx(1)
    seen = [in_batches([p.reference for p in people], 1, lambda photos: np.asarray(photos[0])) for people in both]
    assert np.array_equal(*seen)


def test_a_reference_without_a_face_is_refused_and_another_photo_left_out(
    reader: FaceReader, portraits: Path, tmp_path: Path
) -> None:
    shutil.copytree(portraits, tmp_path / "p")
    for photo in ("002/0.jpg", "000/1.jpg"):
        Image.new("RGB", (64, 64)).save(tmp_path / "p" / photo)
    with pytest.raises(InputError, match=r"no face is found in the reference photo .*002"):
        read_references(reader, read_people(tmp_path / "p", 4))
    assert [len(photos) for photos in read_others(reader, read_people(tmp_path / "p", 2))] == [1, 2]


def _texts() -> Texts:
    """Two styles and three scenes on axes of their own; a prompt points along both."""
    axes = torch.eye(5)
    prompts = F.normalize(axes[:2, None] + axes[None, 2:], dim=-1)
    return Texts(prompts, axes[:2], axes[2:])


def test_style_and_scene_are_right_or_wrong_apart() -> None:
    texts, asked = _texts(), torch.tensor([0, 0, 0, 0])
    pictures = texts.prompts[torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 2, 2])]
    scores = score(pictures, texts, asked, asked)
    assert scores["style_right"].tolist() == [1, 0, 1, 0]
    assert scores["scene_right"].tolist() == [1, 1, 0, 0]
    assert scores["prompt"].tolist() == [1, 0, 0, 0]
    assert scores["clip_t"].tolist() == pytest.approx([1.0, 0.5, 0.5, 0.0])


def test_classes_are_means_over_the_other_attribute(tiny: Checkpoints) -> None:
    styles, scenes = ("a photo", "an oil painting"), ("on the beach", "in the snow")
    texts = embed_texts(open_scorer(tiny), [[f"{style} {scene}" for scene in scenes] for style in styles])
    torch.testing.assert_close(texts.styles, F.normalize(texts.prompts.mean(1), dim=-1))
    torch.testing.assert_close(texts.scenes, F.normalize(texts.prompts.mean(0), dim=-1))
    torch.testing.assert_close(texts.prompts.norm(dim=-1), torch.ones(2, 2))
