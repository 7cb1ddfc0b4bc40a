from collections import Counter

import pytest
import torch

from lookahead.data.pairs import draw_pairs
from lookahead.data.store import FeatureTable
from lookahead.errors import InputError

#          person 0: 2 photos + 1; person 1: 3 photos; person 2: 1 photo + 1; person 3: a photo, another person between
IDENTITY = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3, 0])
PHOTO = torch.tensor([1, 1, 0, 1, 1, 1, 1, 0, 1, 0], dtype=torch.bool)


def _table(identity: torch.Tensor, photo: torch.Tensor) -> FeatureTable:
    names = ["x"] * len(identity)
    return FeatureTable(identity, torch.zeros_like(identity), photo, torch.arange(len(identity)), names, names)


def _draw(seed: int, count: int = 6000) -> list[tuple[int, int]]:
    targets, references = draw_pairs(_table(IDENTITY, PHOTO), count, torch.Generator().manual_seed(seed))
    return list(zip(targets.tolist(), references.tolist(), strict=True))


def test_the_reference_is_another_plain_photo_of_the_same_person() -> None:
    for target, reference in _draw(0):
        assert target != reference
        assert IDENTITY[target] == IDENTITY[reference]
        assert PHOTO[reference]


def test_every_picture_with_a_possible_reference_is_drawn_and_every_reference_equally_often() -> None:
    counts = Counter(_draw(0))
    assert {target for target, _ in counts} == {0, 1, 2, 3, 4, 5, 7, 9}  # 6 and 8 are the only photos of theirs
    assert {reference for target, reference in counts if target == 4} == {3, 5}
    for target, number in Counter(target for target, _ in _draw(0)).items():
        assert 600 < number < 900, target
    assert 0.8 < counts[4, 3] / counts[4, 5] < 1.25


def test_pairs_depend_on_the_generator_alone() -> None:
    assert _draw(1, 50) == _draw(1, 50)
    assert _draw(1, 50) != _draw(2, 50)


def test_a_dataset_without_second_photos_is_refused() -> None:
    with pytest.raises(InputError, match="no person has two photos"):
        draw_pairs(_table(torch.tensor([0, 1]), torch.tensor([True, True])), 1, torch.Generator())
