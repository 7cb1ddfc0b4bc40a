"""Training pairs: a target in any style and a reference, which is another photo of the same person."""

from __future__ import annotations

import torch
from torch import Tensor

from lookahead.data.store import FeatureTable
from lookahead.errors import InputError


def draw_pairs(
    table: FeatureTable, count: int, generator: torch.Generator, photos_only: bool = False
) -> tuple[Tensor, Tensor]:
    """Draw targets from all pictures and for each, as its reference, another photo of the person (official release).

    Args:
        table: who is on each picture, and which ones are photos.
        count: how many pairs.
        generator: seeded from seed and step, on which alone the pairs depend.
        photos_only: leave stylised targets out.

    Returns:
        Rows (count,) of targets and of references.

    Raises:
        InputError: nobody has a second picture that could be the reference.
    """
    photos = torch.nonzero(table.photo).squeeze(1)
    photos = photos[torch.argsort(table.identity[photos], stable=True)]  # (P,) grouped by person
    owners = table.identity[photos]
    first = torch.searchsorted(owners, table.identity)  # (N,) where each picture's person begins among the photos
    number = torch.searchsorted(owners, table.identity, right=True) - first
    others = number - table.photo.long()  # (N,) photos that may be the reference
    eligible = torch.nonzero((others > 0) & (table.photo | (not photos_only))).squeeze(1)
    if len(eligible) == 0:
        raise InputError("no person has two photos: generate more of them, or lower keep_photo")
    targets = eligible[torch.randint(len(eligible), (count,), generator=generator)]
    chance = torch.rand(count, generator=generator, dtype=torch.float64)
    turn = (chance * others[targets]).long()  # (count,) in [0, others)
    place = torch.empty_like(table.identity)  # (N,) a photo's place among its person's photos
    place[photos] = torch.arange(len(photos)) - first[photos]
    skip = table.photo[targets] & (turn >= place[targets])
    return targets, photos[first[targets] + turn + skip.long()]
