from collections import Counter

import pytest
import torch

from lookahead.errors import InputError
from lookahead.features.store import FeatureTable
from lookahead.training.data import Pairs, balanced

#          person 0: 2 photos + 2; person 1: 3 photos; person 2: 1 photo + 1; person 3: a photo, another person between
IDENTITY = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3, 0])
PHOTO = torch.tensor([1, 1, 0, 1, 1, 1, 1, 0, 1, 0], dtype=torch.bool)
STYLE = ["photo", "photo", "oil", "photo", "photo", "photo", "photo", "oil", "photo", "comic"]
# Of three people who have a reference, each has a third; person 0 shows three styles.
CHANCES = {0: 1 / 18, 1: 1 / 18, 2: 1 / 9, 9: 1 / 9, 3: 1 / 9, 4: 1 / 9, 5: 1 / 9, 7: 1 / 3}


def _table(
    identity: torch.Tensor, photo: torch.Tensor, style: list[str], own: torch.Tensor | None = None
) -> FeatureTable:
    rows = torch.arange(len(identity))
    own = torch.zeros(len(identity), dtype=torch.bool) if own is None else own
    return FeatureTable(identity, torch.zeros_like(identity), photo, rows, own, style, style)


def _draw(seed: int, count: int = 6000) -> list[tuple[int, int]]:
    pairs = Pairs(_table(IDENTITY, PHOTO, STYLE), own_share=0.3)
    targets, references = pairs.draw(count, torch.Generator().manual_seed(seed))
    return list(zip(targets.tolist(), references.tolist(), strict=True))


def test_the_reference_is_another_plain_photo_of_the_same_person() -> None:
    for target, reference in _draw(0):
        assert target != reference
        assert IDENTITY[target] == IDENTITY[reference]
        assert PHOTO[reference]


def test_every_reference_comes_equally_often() -> None:
    counts = Counter(_draw(0))
    assert {reference for target, reference in counts if target == 4} == {3, 5}
    assert 0.8 < counts[4, 3] / counts[4, 5] < 1.25


def test_people_and_their_styles_are_balanced() -> None:
    pairs = Pairs(_table(IDENTITY, PHOTO, STYLE), own_share=0.3)
    told = dict(zip(pairs.targets.tolist(), pairs.chances.tolist(), strict=True))
    assert told == pytest.approx(CHANCES)  # 6 and 8 are the only photos of theirs
    drawn = Counter(target for target, _ in _draw(0))
    assert drawn == pytest.approx({row: 6000 * chance for row, chance in CHANCES.items()}, rel=0.15)


def test_own_photos_have_their_share_however_many_there_are() -> None:
    own, identity = torch.tensor([True, True, False, False, False, False]), torch.tensor([2, 2, 0, 0, 1, 1])
    chances = balanced(own, identity, torch.zeros(6, dtype=torch.long), own_share=0.4)
    assert chances.tolist() == pytest.approx([0.2, 0.2, 0.15, 0.15, 0.15, 0.15])


@pytest.mark.parametrize("own", [True, False])
def test_one_source_alone_has_every_draw(own: bool) -> None:
    zeros = torch.zeros(4, dtype=torch.long)
    chances = balanced(torch.full((4,), own), zeros, zeros, own_share=0.0 if own else 1.0)
    assert chances.tolist() == pytest.approx([0.25] * 4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_source_of_no_share_is_never_drawn(share: float) -> None:
    own = IDENTITY == 1
    table = _table(IDENTITY, PHOTO, STYLE, own)
    targets, _ = Pairs(table, own_share=share).draw(500, torch.Generator().manual_seed(0))
    assert own[targets].all() if share else not own[targets].any()


def test_photos_only_leaves_stylised_targets_out() -> None:
    assert Pairs(_table(IDENTITY, PHOTO, STYLE), 0.0, photos_only=True).targets.tolist() == [0, 1, 3, 4, 5]


def test_pairs_depend_on_the_generator_alone() -> None:
    assert _draw(1, 50) == _draw(1, 50)
    assert _draw(1, 50) != _draw(2, 50)


def test_a_dataset_without_second_photos_is_refused() -> None:
    alone = _table(torch.tensor([0, 1]), torch.tensor([True, True]), ["photo"] * 2)
    with pytest.raises(InputError, match="no person has two photos"):
        Pairs(alone, own_share=0.0)
