"""Training pairs: a target in any style and a reference, which is another photo of the same person."""

from __future__ import annotations

import torch
from torch import Tensor

from lookahead.errors import InputError
from lookahead.features.store import FeatureTable


def _shares(groups: Tensor, inside: Tensor) -> Tensor:
    """For each row (N,), 1 / how many of the groups `inside` (N,) lie in the row's one of `groups` (N,)."""
    distinct = torch.unique(torch.stack([groups, inside], 1), dim=0)  # (G, 2)
    return 1 / torch.bincount(distinct[:, 0], minlength=int(groups.max()) + 1)[groups].double()


def balanced(own: Tensor, identity: Tensor, style: Tensor, own_share: float) -> Tensor:
    """The chance of each picture: every person of a source has the same, as has every style of a person.

    Args:
        own: which pictures (N,) are own photos, bool.
        identity: who is on them (N,); no one is in both sources.
        style: a number (N,) for each one's style.
        own_share: the own photos' chance, where there are both sources.

    Returns:
        Chances (N,), float64, of sum 1.
    """
    rows = torch.arange(len(own))
    looks = identity * (int(style.max()) + 1) + style  # a number for each style of each person
    within = _shares(own.long(), identity) * _shares(identity, style) * _shares(looks, rows)
    both = bool(own.any()) and not bool(own.all())
    return within * (torch.where(own, own_share, 1 - own_share).double() if both else 1.0)


class Pairs:
    """The pairs of a dataset: any picture as target and, as its reference, another photo of the person."""

    def __init__(self, table: FeatureTable, own_share: float, photos_only: bool = False) -> None:
        """Find who has a second photo.

        Args:
            table: who is on each picture, in which style, and which ones are photos.
            own_share: the share of targets that are own photos, where there are any.
            photos_only: leave stylised targets out.

        Raises:
            InputError: nobody has a second picture that could be the reference.
        """
        photos = torch.nonzero(table.photo).squeeze(1)
        self._photos = photos[torch.argsort(table.identity[photos], stable=True)]  # (P,) grouped by person
        owners = table.identity[self._photos]
        self._first = torch.searchsorted(owners, table.identity)  # (N,) where each one's person begins among the photos
        number = torch.searchsorted(owners, table.identity, right=True) - self._first
        self._others = number - table.photo.long()  # (N,) photos that may be the reference
        self._place = torch.full_like(table.identity, len(photos))  # (N,) a photo's place among its person's photos
        self._place[self._photos] = torch.arange(len(photos)) - self._first[self._photos]
        self.targets = torch.nonzero((self._others > 0) & (table.photo | (not photos_only))).squeeze(1)
        if len(self.targets) == 0:
            raise InputError("no person has two photos: generate more of them, or lower min_photo_similarity")
        numbers = {style: number for number, style in enumerate(sorted(set(table.style)))}
        styles = torch.tensor([numbers[style] for style in table.style])[self.targets]
        self.chances = balanced(table.own[self.targets], table.identity[self.targets], styles, own_share)
        self._ends = self.chances.cumsum(0)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows (count,) of targets and of references, which depend on the generator alone."""
        targets = self._draw_targets(count, generator)
        chance = torch.rand(count, generator=generator, dtype=torch.float64)
        turn = (chance * self._others[targets]).long()  # (count,) in [0, others)
        skip = turn >= self._place[targets]  # a photo is not its own reference
        return targets, self._photos[self._first[targets] + turn + skip.long()]

    def _draw_targets(self, count: int, generator: torch.Generator) -> Tensor:
        chance = torch.rand(count, generator=generator, dtype=torch.float64) * self._ends[-1]
        return self.targets[torch.searchsorted(self._ends, chance, right=True)]
