"""The six places a portrait can be taken in, as pictures without a person, and the light each casts."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from miniature.shapes import ellipse, mask, paint, ramp, smooth_noise

# How each scene tints the person: red, green and blue factors, in the order of words.SCENES.
LIGHT = torch.tensor(
    [
        [1.0, 1.0, 1.0],
        [1.05, 1.02, 0.96],
        [0.96, 1.02, 0.94],
        [0.98, 1.01, 1.05],
        [0.85, 0.87, 0.98],
        [1.06, 0.95, 0.88],
    ]
)


def background(scene: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Draw each sample's scene: (B,) int64 → (B, 3, size, size) in [0, 1], without a person."""
    axis = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    # Every scene's draws are made for every sample, so that a picture does not depend on its neighbours' scenes.
    places = [draw(x.expand(len(scene), -1, -1), y.expand(len(scene), -1, -1), generator) for draw in _PLACES]
    return torch.stack(places, 1)[torch.arange(len(scene)), scene].clamp(0, 1)


def _uniform(like: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    return (torch.rand(len(like), generator=generator) * (high - low) + low)[:, None, None]


def _colour(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue])[None, :, None, None]


def _vertical(y: Tensor, top: Tensor, bottom: Tensor) -> Tensor:
    return torch.lerp(top, bottom, y.unsqueeze(1))


def _studio(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    hue = torch.rand(len(x), generator=generator) * 2 - 1
    wall = ramp(hue, [(0.45, 0.5, 0.55), (0.62, 0.6, 0.56), (0.5, 0.42, 0.45), (0.42, 0.5, 0.48)])
    glow = mask(ellipse(x, y, _uniform(x, 0.2, 0.8, generator), _uniform(x, 0.1, 0.5, generator), 0.55, 0.55), 0.12)
    return paint(wall.expand(-1, -1, *x.shape[1:]), glow * 0.6, wall + 0.25)


def _beach(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    canvas = _vertical(y / 0.5, _colour(0.35, 0.68, 0.96), _colour(0.75, 0.9, 0.98))
    horizon = _uniform(x, 0.34, 0.5, generator)
    wave = 0.012 * torch.sin(30 * x + _uniform(x, 0, 6.3, generator))
    canvas = paint(canvas, mask(horizon - y, 0.006), _colour(0.08, 0.45, 0.68))
    canvas = paint(canvas, mask((y - horizon - 0.1 - wave).abs() - 0.012, 0.006), _colour(0.9, 0.97, 1.0))
    canvas = paint(canvas, mask(horizon + 0.22 + wave - y, 0.01), _colour(0.94, 0.83, 0.58))
    sun_x = torch.where(_uniform(x, 0, 1, generator) < 0.5, 0.13, 0.87)
    return paint(
        canvas, mask(ellipse(x, y, sun_x, _uniform(x, 0.1, 0.2, generator), 0.08, 0.08), 0.01), _colour(1.0, 0.97, 0.7)
    )


def _forest(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    canvas = _vertical(y, _colour(0.35, 0.6, 0.25), _colour(0.12, 0.3, 0.1))
    leaves = smooth_noise(len(x), 14, x.shape[-1], generator)
    canvas = canvas + 0.1 * leaves.unsqueeze(1) * _colour(0.6, 1.0, 0.4)
    for centre in (0.05, 0.2, 0.8, 0.95):
        place = centre + _uniform(x, -0.06, 0.06, generator)
        width = _uniform(x, 0.022, 0.045, generator)
        canvas = paint(canvas, mask((x - place).abs() - width * (0.7 + 0.5 * y), 0.006), _colour(0.26, 0.17, 0.1))
    return canvas


def _snow(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    canvas = _vertical(y, _colour(0.55, 0.66, 0.8), _colour(0.8, 0.86, 0.93))
    hill = _uniform(x, 0.4, 0.55, generator) + 0.09 * torch.sin(4.5 * x + _uniform(x, 0, 6.3, generator))
    canvas = paint(canvas, mask(hill - y, 0.01), _colour(0.96, 0.98, 1.0))
    flakes = torch.rand(len(x), 26, 3, generator=generator)
    nearest = torch.full_like(x, 9.0)
    for flake in flakes.unbind(1):
        fx, fy, radius = (flake[:, i, None, None] for i in range(3))
        nearest = torch.minimum(nearest, ((x - fx) ** 2 + (y - fy) ** 2).sqrt() - 0.012 - 0.014 * radius)
    return paint(canvas, mask(nearest, 0.005), _colour(1.0, 1.0, 1.0))


def _city(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    canvas = _vertical(y, _colour(0.03, 0.04, 0.14), _colour(0.18, 0.13, 0.32))
    towers = 7
    skyline = torch.rand(len(x), towers, generator=generator) * 0.4 + 0.02
    top = skyline.gather(1, (x[:, 0] * towers).long().clamp(max=towers - 1))[:, None, :]
    canvas = paint(canvas, mask(top - y, 0.004), _colour(0.07, 0.08, 0.13))
    cells = 16
    lit = (torch.rand(len(x), cells, cells, generator=generator) < 0.5).float()
    column, row = (x * cells).long().clamp(max=cells - 1), (y * cells).long().clamp(max=cells - 1)
    on = lit.flatten(1).gather(1, (row * cells + column).flatten(1)).view_as(x)
    pane = mask(((x * cells) % 1 - 0.5).abs() - 0.28, 0.04) * mask(((y * cells) % 1 - 0.5).abs() - 0.3, 0.04)
    return paint(canvas, on * pane * mask(top + 0.02 - y, 0.004), _colour(1.0, 0.83, 0.4))


def _sunset(x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    canvas = _vertical((y / 0.6).clamp(0, 1), _colour(0.42, 0.18, 0.5), _colour(1.0, 0.55, 0.2))
    bands = 0.06 * torch.sin(22 * y + 2 * x + _uniform(x, 0, 6.3, generator))
    canvas = canvas + bands.unsqueeze(1)
    sun = torch.where(_uniform(x, 0, 1, generator) < 0.5, 0.14, 0.86), _uniform(x, 0.4, 0.52, generator)
    canvas = paint(canvas, mask(ellipse(x, y, *sun, 0.14, 0.14), 0.012), _colour(1.0, 0.9, 0.45))
    return paint(canvas, mask(0.6 - y, 0.008), _colour(0.25, 0.12, 0.22))


_PLACES: tuple[Callable[[Tensor, Tensor, torch.Generator], Tensor], ...] = (
    _studio,
    _beach,
    _forest,
    _snow,
    _city,
    _sunset,
)
