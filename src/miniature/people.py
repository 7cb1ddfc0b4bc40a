"""Who a person is: the identity vector, its meaning, and how names decide it."""

from __future__ import annotations

import torch
from torch import Tensor

from miniature.words import FIRST, LAST

# Each number lies in [-1, 1]. Their order is part of the recognisers' training targets.
TRAITS = (
    "skin_tone",
    "skin_warmth",
    "hair_colour",
    "hair_tint",
    "hair_length",
    "hair_volume",
    "hair_curl",
    "fringe",
    "parting",
    "face_width",
    "jaw",
    "chin",
    "eye_size",
    "eye_spacing",
    "eye_colour",
    "eye_tilt",
    "brow_weight",
    "brow_tilt",
    "nose_length",
    "nose_width",
    "mouth_width",
    "lips",
    "ears",
    "beard",
    "moustache",
    "glasses",
)
IDENTITY_SIZE = len(TRAITS)
_NAME_SEED = 2404_03620  # fixed for good: it decides who everybody is
_CANDIDATES = 4096


def draw_identities(count: int, generator: torch.Generator) -> Tensor:
    """Draw anonymous people, uniform over face space: (count, IDENTITY_SIZE) in [-1, 1]."""
    return torch.rand(count, IDENTITY_SIZE, generator=generator) * 2 - 1


def name_identity(first: Tensor, last: Tensor) -> Tensor:
    """The identity of the name FIRST[first] LAST[last], each part deciding every second trait.

    Args:
        first: (B,) int64 index into FIRST.
        last: (B,) int64 index into LAST.

    Returns:
        (B, IDENTITY_SIZE) in [-1, 1].
    """
    identity = torch.empty(len(first), IDENTITY_SIZE)
    identity[:, 0::2] = _half(0, len(FIRST))[first]
    identity[:, 1::2] = _half(1, len(LAST))[last]
    return identity


def _half(which: int, count: int) -> Tensor:
    """Half-identities that lie far apart: each next one is, of many candidates, the one farthest from those chosen."""
    generator = torch.Generator().manual_seed(_NAME_SEED + which)
    candidates = torch.rand(_CANDIDATES, IDENTITY_SIZE // 2, generator=generator) * 2 - 1
    chosen = [0]
    nearest = torch.full((_CANDIDATES,), float("inf"))
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, (candidates - candidates[chosen[-1]]).norm(dim=1))
        chosen.append(int(nearest.argmax()))
    return candidates[chosen]
