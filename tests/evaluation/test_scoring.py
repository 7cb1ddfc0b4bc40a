"""What is read of portraits' faces, and zero-shot style and scene by embeddings whose answers are known."""

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from lookahead.config import Checkpoints
from lookahead.errors import InputError
from lookahead.evaluation.pictures import Asked, Plan, in_batches
from lookahead.evaluation.scores import (
    FaceReader,
    Texts,
    embed_plan,
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


WORDS = {"style": ["a photo", "an oil painting"], "scene": ["beach", "snow", "city"], "mood": ["sad", "glad"]}
PROMPTS: dict[Asked, str] = {asked: " ".join(asked) for asked in itertools.product(*WORDS.values())}
PLAN = Plan(WORDS, PROMPTS, plain="a photo", shots=[])


def test_each_kind_of_what_is_asked_for_is_right_or_wrong_apart() -> None:
    """Words on axes of their own; a prompt points along its three."""
    axes = dict(zip(WORDS, torch.eye(7).split([2, 3, 2]), strict=True))
    numbers = {asked: number for number, asked in enumerate(PROMPTS)}
    sums = torch.cartesian_prod(torch.arange(2), torch.arange(2, 5), torch.arange(5, 7))
    texts = Texts(F.normalize(torch.eye(7)[sums].sum(1), dim=-1), axes)
    seen = [("a photo", "beach", "sad"), ("an oil painting", "beach", "sad"), ("a photo", "city", "glad")]
    scores = score(texts.prompts[[numbers[one] for one in seen]], texts, PLAN, [seen[0]] * 3)
    assert scores["style_right"].tolist() == [1, 0, 1]
    assert scores["scene_right"].tolist() == [1, 1, 0]
    assert scores["mood_right"].tolist() == [1, 1, 0]
    assert scores["prompt"].tolist() == [1, 0, 0]
    assert scores["clip_t"].tolist() == pytest.approx([1, 2 / 3, 1 / 3])


def test_a_words_embedding_is_the_mean_over_all_prompts_that_name_it(tiny: Checkpoints) -> None:
    texts = embed_plan(open_scorer(tiny), PLAN)
    for kind, (name, some) in enumerate(WORDS.items()):
        for word, embedding in zip(some, texts.words[name], strict=True):
            named = [number for number, asked in enumerate(PROMPTS) if asked[kind] == word]
            torch.testing.assert_close(embedding, F.normalize(texts.prompts[named].mean(0), dim=-1))
    torch.testing.assert_close(texts.prompts.norm(dim=-1), torch.ones(len(PROMPTS)))
