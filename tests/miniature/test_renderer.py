"""The renderer: deterministic, annotated rightly, and different people look different."""

import pytest
import torch

from miniature.people import IDENTITY_SIZE, draw_identities, name_identity
from miniature.renderer import SIZE, Portraits, faceless, render
from miniature.words import FIRST, LAST, SCENES, STYLES, held_out


def _draw(count: int, seed: int, style: int = 0) -> Portraits:
    generator = torch.Generator().manual_seed(seed)
    people = draw_identities(count, generator)
    scene = torch.arange(count) % len(SCENES)
    return render(people, torch.full((count,), style), scene, generator, "portrait")


def test_same_seed_same_pictures() -> None:
    assert torch.equal(_draw(3, 1).pixels, _draw(3, 1).pixels)
    assert not torch.equal(_draw(3, 1).pixels, _draw(3, 2).pixels)


@pytest.mark.parametrize("style", range(len(STYLES)))
def test_shapes_and_ranges(style: int) -> None:
    drawn = _draw(4, 5, style)
    assert drawn.pixels.shape == (4, 3, SIZE, SIZE)
    assert drawn.pixels.min() >= -1 and drawn.pixels.max() <= 1
    assert drawn.pixels.std() > 0.1
    assert drawn.landmarks.shape == (4, 5, 2) and drawn.boxes.shape == (4, 4)


def test_landmarks_lie_in_the_box_and_in_order() -> None:
    drawn = _draw(64, 3)
    low, high = drawn.boxes[:, None, :2], drawn.boxes[:, None, 2:]
    assert ((drawn.landmarks > low) & (drawn.landmarks < high)).all()
    left_eye, right_eye, nose, left_mouth, right_mouth = drawn.landmarks.unbind(1)
    assert (left_eye[:, 0] < right_eye[:, 0]).all() and (left_mouth[:, 0] < right_mouth[:, 0]).all()
    assert (nose[:, 1] > torch.minimum(left_eye, right_eye)[:, 1]).all()


def test_eyes_are_where_the_landmarks_say() -> None:
    """The whites of the eyes are the brightest spot around: the picture there is brighter than the forehead's skin."""
    generator = torch.Generator().manual_seed(0)
    people = torch.zeros(16, IDENTITY_SIZE)
    people[:, 0], people[:, 25] = 0.8, -1.0  # dark skin, no glasses: the eyes stand out
    drawn = render(
        people, torch.zeros(16, dtype=torch.int64), torch.zeros(16, dtype=torch.int64), generator, "portrait"
    )
    grey = drawn.pixels.mean(1)
    brighter = 0
    for row in range(16):
        x, y = drawn.landmarks[row, 0].round().long().tolist()
        eye = grey[row, y - 2 : y + 3, x - 3 : x + 4].max()
        brighter += int(eye > grey[row, y + 5 : y + 8, x - 3 : x + 4].max())
    assert brighter >= 15


def test_every_trait_changes_the_picture() -> None:
    scene, style = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)

    def picture(people: torch.Tensor) -> torch.Tensor:
        return render(people, style, scene, torch.Generator().manual_seed(4), "portrait").pixels

    middle = torch.zeros(1, IDENTITY_SIZE)
    for trait in range(IDENTITY_SIZE):
        low, high = middle.clone(), middle.clone()
        low[0, trait], high[0, trait] = -1, 1
        assert (picture(low) - picture(high)).abs().max() > 0.1, trait


def test_scenes_without_people_differ() -> None:
    pictures = faceless(
        torch.arange(len(SCENES)), torch.zeros(len(SCENES), dtype=torch.int64), torch.Generator().manual_seed(0)
    )
    distance = torch.cdist(pictures.flatten(1), pictures.flatten(1)) + torch.eye(len(SCENES)) * 1e9
    assert distance.min() > 5


def test_names_decide_half_of_the_traits_each() -> None:
    one = name_identity(torch.tensor([3, 3]), torch.tensor([5, 9]))
    assert torch.equal(one[0, 0::2], one[1, 0::2]) and not torch.equal(one[0, 1::2], one[1, 1::2])


def test_one_name_in_eight_is_held_out_and_every_part_is_trained() -> None:
    table = torch.tensor([[held_out(i, j) for j in range(len(LAST))] for i in range(len(FIRST))])
    assert table.float().mean() == 1 / 8
    assert not table.all(0).any() and not table.all(1).any()
