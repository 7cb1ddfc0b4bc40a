"""Smooth shapes: signed distances, soft masks, layers, textures. All (B, H, W), in any length unit."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def ellipse(
    x: Tensor, y: Tensor, cx: Tensor | float, cy: Tensor | float, rx: Tensor | float, ry: Tensor | float
) -> Tensor:
    """Approximate signed distance to an ellipse, negative inside."""
    rx, ry = torch.as_tensor(rx), torch.as_tensor(ry)
    return ((((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2).sqrt() - 1) * torch.minimum(rx, ry)


def segment(x: Tensor, y: Tensor, ax: Tensor, ay: Tensor, bx: Tensor, by: Tensor) -> Tensor:
    """Distance to the line segment from a to b."""
    dx, dy = bx - ax, by - ay
    along = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
    return ((x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2).sqrt()


def mask(distance: Tensor, softness: Tensor | float) -> Tensor:
    """Coverage in [0, 1] of the inside of a signed distance, with an edge of the given softness."""
    return torch.sigmoid(-distance / softness)


def paint(canvas: Tensor, cover: Tensor, colour: Tensor) -> Tensor:
    """Lay a colour (B, 3, 1, 1) or (B, 3, H, W) over the canvas (B, 3, H, W) where `cover` (B, H, W) is 1."""
    return torch.lerp(canvas, colour.expand_as(canvas), cover.unsqueeze(1))


def ramp(position: Tensor, colours: list[tuple[float, float, float]]) -> Tensor:
    """Colours (B, 3, 1, 1) along a palette for positions (B,) in [-1, 1]."""
    table = torch.tensor(colours)
    place = (position.clamp(-1, 1) + 1) / 2 * (len(colours) - 1)
    low = place.floor().long().clamp(max=len(colours) - 2)
    return torch.lerp(table[low], table[low + 1], (place - low).unsqueeze(1))[:, :, None, None]


def smooth_noise(count: int, cells: int, size: int, generator: torch.Generator) -> Tensor:
    """Smooth noise (count, size, size), about unit variance, of `cells` bumps a side."""
    coarse = torch.randn(count, 1, cells, cells, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False).squeeze(1)


def blur(image: Tensor, radius: int) -> Tensor:
    """Box blur of (B, C, H, W), applied twice, so that it looks round."""
    for _ in range(2):
        image = F.avg_pool2d(F.pad(image, [radius] * 4, mode="replicate"), 2 * radius + 1, 1)
    return image


def edges(image: Tensor) -> Tensor:
    """Strength (B, H, W) of the edges of (B, 3, H, W): the norm of the central differences over all colours."""
    padded = F.pad(image, [1] * 4, mode="replicate")
    horizontal = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    vertical = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    return (horizontal.square() + vertical.square()).sum(1).sqrt()
