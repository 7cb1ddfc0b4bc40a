"""The convolutional teacher of the miniature's vision encoder: what it sees at a place, the encoder copies there."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from lookahead.artifacts import Log
from lookahead.config import Part
from miniature.autoencoders import pixels_of
from miniature.fitting import fit
from miniature.people import IDENTITY_SIZE
from miniature.pool import Pool
from miniature.text import facts_loss
from miniature.words import SCENES, STYLES

CHANNELS = 96  # of the map
_LAYERS = ((3, 32, 5, 2), (32, 64, 3, 2), (64, 64, 3, 1), (64, 96, 3, 2), (96, 96, 3, 1), (96, CHANNELS, 3, 1))
_HEAD = 64  # channels of the map that facts are read from


class PictureTeacher(nn.Module):
    """Pictures (B, 3, 64, 64) in [-1, 1] → a map (B, CHANNELS, 8, 8), a cell for each patch of the encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*(Conv2dNormActivation(a, b, side, stride) for a, b, side, stride in _LAYERS))
        facts = nn.Linear(_HEAD * 8 * 8, IDENTITY_SIZE + len(STYLES) + len(SCENES))
        self.head = nn.Sequential(nn.Conv2d(CHANNELS, _HEAD, 1), nn.ReLU(), nn.Flatten(), facts)

    def forward(self, pixels: Tensor) -> Tensor:
        seen: Tensor = self.trunk(pixels.contiguous(memory_format=torch.channels_last))
        return seen


def train_teacher(pool: Pool, part: Part, work: Path, log: Log) -> PictureTeacher:
    """Train the teacher to tell the identity, style and scene of pictures; it is not saved, only resumed."""
    torch.manual_seed(part.seed)
    teacher = PictureTeacher().to(memory_format=torch.channels_last)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pool), (part.batch,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16):
            facts = teacher.head(teacher(pixels_of(pool, rows)))
        return facts_loss(facts.float(), pool.identity[rows], pool.style[rows], pool.scene[rows])

    fit(teacher, loss, part, work, log)
    return teacher.eval().requires_grad_(False)
