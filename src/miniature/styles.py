"""The six styles: from a flat picture and its shading to a photo, a drawing or a painting."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from miniature.shapes import blur, edges, smooth_noise


def stylise(style: Tensor, flat: Tensor, shade: Tensor, generator: torch.Generator) -> Tensor:
    """Finish each picture in its style.

    Args:
        style: (B,) int64 index into words.STYLES.
        flat: (B, 3, H, W) in [0, 1], the picture in flat colours.
        shade: (B, H, W), the factor of the light on each pixel.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    grain = torch.stack([smooth_noise(len(flat), cells, flat.shape[-1], generator) for cells in (64, 24, 9)], 1)
    finished = torch.empty_like(flat)
    for index, finish in enumerate(_FINISHES):
        rows = (style == index).nonzero().squeeze(1)
        if len(rows):
            finished[rows] = finish(flat[rows], shade[rows], grain[rows])
    return finished.clamp(0, 1)


def _grey(image: Tensor) -> Tensor:
    return (image * torch.tensor([0.3, 0.55, 0.15])[None, :, None, None]).sum(1, keepdim=True)


def _saturate(image: Tensor, amount: float) -> Tensor:
    return torch.lerp(_grey(image).expand_as(image), image, amount)


def _lines(flat: Tensor, threshold: float, softness: float) -> Tensor:
    return torch.sigmoid((edges(flat) - threshold) / softness).unsqueeze(1)


def _photo(flat: Tensor, shade: Tensor, grain: Tensor) -> Tensor:
    return flat * shade.unsqueeze(1) + 0.006 * grain[:, :1]


def _pencil(flat: Tensor, shade: Tensor, grain: Tensor) -> Tensor:
    tone = _grey(flat * shade.unsqueeze(1))
    size = flat.shape[-1]
    axis = torch.arange(size, dtype=torch.float32)
    hatch = torch.sin((axis[None, :] + axis[:, None]) * (2 * torch.pi / (size / 16)))[None, None]
    paper = 0.98 - 0.62 * (1 - tone) ** 1.5 * (0.85 + 0.16 * hatch + 0.06 * grain[:, :1])
    ink = _lines(flat, 0.2, 0.05)
    return (paper * (1 - 0.75 * ink)).expand_as(flat) * torch.tensor([1.0, 0.99, 0.96])[None, :, None, None]


def _watercolour(flat: Tensor, shade: Tensor, grain: Tensor) -> Tensor:
    washed = blur(flat, 1) * (0.6 + 0.4 * shade.unsqueeze(1))
    washed = _saturate(washed, 1.35) * 0.68 + 0.32
    pooled = 1 - 0.3 * _lines(blur(flat, 1), 0.14, 0.04)  # pigment gathers at the edges of a wash
    return washed * pooled + 0.012 * grain[:, 1:2] + 0.035 * grain[:, 2:3]


def _comic(flat: Tensor, shade: Tensor, grain: Tensor) -> Tensor:
    lit = _saturate(flat, 1.5) * torch.where(shade.unsqueeze(1) < 0.93, 0.78, 1.08)
    levels = 5
    flat_tone = lit * levels
    poster = (flat_tone.floor() + torch.sigmoid((flat_tone - flat_tone.floor() - 0.5) * 12)) / levels
    return poster * (1 - 0.95 * _lines(flat, 0.2, 0.035))


def _oil(flat: Tensor, shade: Tensor, grain: Tensor) -> Tensor:
    thick = blur(flat * shade.unsqueeze(1) ** 1.4, 1)
    strokes = 0.35 * grain[:, 1:2] + 0.12 * grain[:, :1]
    warm = torch.tensor([1.06, 0.97, 0.82])[None, :, None, None]
    return (_saturate(thick, 1.3) * (0.98 + 0.16 * strokes)).clamp(min=1e-4) ** 1.15 * warm


def _graffiti(flat: Tensor, shade: Tensor, grain: Tensor) -> Tensor:
    neon = (
        _saturate(flat, 1.7) * (0.75 + 0.25 * shade.unsqueeze(1))
        + torch.tensor([0.06, -0.03, 0.12])[None, :, None, None]
    ).clamp(0, 1)
    size = flat.shape[-1]
    row = torch.arange(size) * 16 // size
    across = (torch.arange(size)[None, :] + (row % 2)[:, None] * size // 16) % (size // 8)
    mortar = ((torch.arange(size) % (size // 16) < size / 64)[:, None] | (across < size / 64)).float()
    wall = neon * (1 - 0.2 * mortar) + 0.015 * grain[:, :1]
    glow = 0.9 * _lines(flat, 0.3, 0.04)
    return wall * (1 - glow) + glow * torch.tensor([0.98, 0.95, 0.25])[None, :, None, None]


_FINISHES: tuple[Callable[[Tensor, Tensor, Tensor], Tensor], ...] = (
    _photo,
    _pencil,
    _watercolour,
    _comic,
    _oil,
    _graffiti,
)
