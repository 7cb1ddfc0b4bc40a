"""The renderer and its data: deterministic, annotated rightly, and different people look different."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from miniature import data
from miniature.adapter import reference_rows
from miniature.build import read_miniature
from miniature.data import Pool, open_pool
from miniature.renderer import CHUNK, SIZE, Portraits, faceless, render
from miniature.vocabulary import (
    FIRST,
    IDENTITY_SIZE,
    LAST,
    SCENES,
    STYLES,
    draw_identities,
    held_out,
    name_identity,
    subjects,
)

HOME = Path("models/miniature/portraits")


def _draw(count: int, seed: int, style: int = 0) -> Portraits:
    generator = torch.Generator().manual_seed(seed)
    people = draw_identities(count, generator)
    return render(people, torch.full((count,), style), torch.arange(count) % len(SCENES), generator, "portrait")


def test_the_committed_portraits_are_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first sixteen of each split, which are drawn at once."""

    def first(*rows: Any) -> Portraits:
        return render(*(row[:CHUNK] for row in rows[:3]), *rows[3:])

    monkeypatch.setattr(data, "render", first)
    data.build_portraits(read_miniature().people, tmp_path)
    drawn = sorted(tmp_path.rglob("*.jpg"))
    assert len(drawn) == CHUNK * len(data.SPLITS)
    for path in drawn:
        same, committed = (pil_to_tensor(Image.open(file)).int() for file in (path, HOME / path.relative_to(tmp_path)))
        assert (same - committed).abs().max() <= 3, path  # of 255: processors round differently


@pytest.mark.parametrize("style", range(len(STYLES)))
def test_shapes_and_ranges(style: int) -> None:
    drawn = _draw(4, 5, style)
    assert drawn.pixels.shape == (4, 3, SIZE, SIZE)
    assert drawn.pixels.min() >= -1 and drawn.pixels.max() <= 1 and drawn.pixels.std() > 0.1


def test_landmarks_lie_in_the_box_and_in_order() -> None:
    drawn = _draw(64, 3)
    low, high = drawn.boxes[:, None, :2], drawn.boxes[:, None, 2:]
    assert ((drawn.landmarks > low) & (drawn.landmarks < high)).all()
    left_eye, right_eye, nose, left_mouth, right_mouth = drawn.landmarks.unbind(1)
    assert (left_eye[:, 0] < right_eye[:, 0]).all() and (left_mouth[:, 0] < right_mouth[:, 0]).all()
    assert (nose[:, 1] > torch.minimum(left_eye, right_eye)[:, 1]).all()


def test_eyes_are_where_the_landmarks_say() -> None:
    """On dark skin without glasses, the picture is brighter at the landmark than on the cheek below it."""
    people, zeros = torch.zeros(16, IDENTITY_SIZE), torch.zeros(16, dtype=torch.int64)
    people[:, 0], people[:, 25] = 0.8, -1.0
    drawn = render(people, zeros, zeros, torch.Generator().manual_seed(0), "portrait")
    brighter = 0
    for grey, (x, y) in zip(drawn.pixels.mean(1), drawn.landmarks[:, 0].round().long().tolist(), strict=True):
        eye, cheek = grey[y - 2 : y + 3, x - 3 : x + 4], grey[y + 5 : y + 8, x - 3 : x + 4]
        brighter += int(eye.max() > cheek.max())
    assert brighter >= 15


def test_every_trait_changes_the_picture() -> None:
    people = torch.cat([torch.eye(IDENTITY_SIZE), -torch.eye(IDENTITY_SIZE)])
    zero = torch.zeros(1, dtype=torch.int64)
    pictures = [render(row[None], zero, zero, torch.Generator().manual_seed(4), "portrait").pixels for row in people]
    high, low = torch.cat(pictures).chunk(2)
    assert ((high - low).abs().amax((1, 2, 3)) > 0.1).all()


def test_scenes_without_people_differ() -> None:
    scenes = torch.arange(len(SCENES))
    pictures = faceless(scenes, torch.zeros_like(scenes), torch.Generator().manual_seed(0)).flatten(1)
    assert (torch.cdist(pictures, pictures) + torch.eye(len(SCENES)) * 1e9).min() > 5


def test_names_decide_half_of_the_traits_each() -> None:
    one = name_identity(torch.tensor([3, 3]), torch.tensor([5, 9]))
    assert torch.equal(one[0, 0::2], one[1, 0::2]) and not torch.equal(one[0, 1::2], one[1, 1::2])


def test_one_name_in_eight_is_held_out_and_every_part_is_trained() -> None:
    table = torch.tensor([[held_out(i, j) for j in range(len(LAST))] for i in range(len(FIRST))])
    assert table.float().mean() == 1 / 8
    assert not table.all(0).any() and not table.all(1).any()


@pytest.fixture
def pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pool:
    monkeypatch.setattr(data, "SHARD", 12)
    return open_pool(tmp_path, 2, seed=3)


def test_a_lost_shard_of_the_pool_comes_back_the_same(tmp_path: Path, pool: Pool) -> None:
    before = (tmp_path / "001.safetensors").read_bytes()
    (tmp_path / "001.safetensors").unlink()
    open_pool(tmp_path, 2, seed=3)
    assert (tmp_path / "001.safetensors").read_bytes() == before


def test_captions_name_style_and_person_and_no_name_that_is_held_out(pool: Pool) -> None:
    assert len(pool) == 24
    for text, style, name in zip(pool.captions(), pool.style, subjects(pool.first, pool.last), strict=True):
        assert text.startswith(f"{list(STYLES.values())[style]} of {name} ")
    named = pool.first >= 0
    assert not any(held_out(i, j) for i, j in zip(pool.first[named], pool.last[named], strict=True))


def test_references_show_the_same_person(pool: Pool) -> None:
    references = reference_rows(pool)
    other = references[references != torch.arange(len(pool))]
    assert torch.equal(pool.first[references], pool.first) and torch.equal(pool.last[references], pool.last)
    assert (pool.style[other] == 0).all()
