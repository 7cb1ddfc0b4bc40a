"""Random changes of pictures that keep what they show: networks that judge sampled pictures train on them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SHIFT = 5  # pixels
BLUR = 1.2  # pixels, standard deviation


def move(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to SHIFT pixels, the border repeated, and mirror half of the pictures: (B, 3, H, W) → the same."""
    count, _, height, width = pixels.shape
    shift = torch.randint(-SHIFT, SHIFT + 1, (2, count, 1), generator=generator)
    rows = (torch.arange(height) + shift[0]).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width) + shift[1]).clamp(0, width - 1)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    picture = torch.arange(count)[:, None, None]
    moved: Tensor = pixels.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return moved.contiguous()


def jitter(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Change contrast by up to 15 % and each colour by up to 0.08."""
    contrast = 1 + 0.15 * (2 * torch.rand(len(pixels), 1, 1, 1, generator=generator) - 1)
    colour = 0.08 * (2 * torch.rand(len(pixels), 3, 1, 1, generator=generator) - 1)
    return (pixels * contrast + colour).clamp(-1, 1)


def blur(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blur half of the pictures, each by a Gaussian of its own of at most BLUR pixels."""
    count, channels, height, width = pixels.shape
    sigma = BLUR * torch.rand(count, 1, generator=generator).clamp(min=0.1)
    sigma[torch.rand(count, 1, generator=generator) < 0.5] = 0.05  # leaves the picture as it is
    offset = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.softmax(-(offset**2) / (2 * sigma**2), 1).repeat_interleave(channels, 0)  # (B * C, 7)
    stacked = F.pad(pixels.reshape(1, count * channels, height, width), (3, 3, 3, 3), mode="replicate")
    along = F.conv2d(stacked, kernel[:, None, None, :], groups=count * channels)
    return F.conv2d(along, kernel[:, None, :, None], groups=count * channels).reshape(pixels.shape)
