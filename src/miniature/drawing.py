"""Smooth shapes, the backgrounds of the six scenes, and the six styles.

Shapes are signed distances and soft masks (B, H, W), in any length unit. A style turns a picture in flat colours and
its shading into a photo, a drawing or a painting.
"""

from __future__ import annotations

from collections.abc import Callable

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
    at = (position.clamp(-1, 1) + 1) / 2 * (len(colours) - 1)
    low = at.floor().long().clamp(max=len(colours) - 2)
    return torch.lerp(table[low], table[low + 1], (at - low).unsqueeze(1))[:, :, None, None]


def smooth_noise(count: int, cells: int, size: int, generator: torch.Generator) -> Tensor:
    """Smooth noise (count, size, size), about unit variance, of `cells` bumps a side."""
    coarse = torch.randn(count, 1, cells, cells, generator=generator)
    return F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=False).squeeze(1)


# How each scene tints the person: red, green and blue factors, in the order of vocabulary.SCENES.
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
    # All scenes are drawn for every sample, so that a picture does not depend on the scenes of its batch.
    drawn = [draw(x.expand(len(scene), -1, -1), y.expand(len(scene), -1, -1), generator) for draw in _SCENES]
    return torch.stack(drawn, 1)[torch.arange(len(scene)), scene].clamp(0, 1)


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
        trunk = centre + _uniform(x, -0.06, 0.06, generator)
        width = _uniform(x, 0.022, 0.045, generator)
        canvas = paint(canvas, mask((x - trunk).abs() - width * (0.7 + 0.5 * y), 0.006), _colour(0.26, 0.17, 0.1))
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


_SCENES: tuple[Callable[[Tensor, Tensor, torch.Generator], Tensor], ...] = (
    _studio,
    _beach,
    _forest,
    _snow,
    _city,
    _sunset,
)


def stylise(style: Tensor, flat: Tensor, shade: Tensor, generator: torch.Generator) -> Tensor:
    """Finish each picture in its style.

    Args:
        style: (B,) int64 index into vocabulary.STYLES.
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


def _blur(image: Tensor, radius: int) -> Tensor:
    """Box blur of (B, C, H, W), applied twice, so that it looks round."""
    for _ in range(2):
        image = F.avg_pool2d(F.pad(image, [radius] * 4, mode="replicate"), 2 * radius + 1, 1)
    return image


def _edges(image: Tensor) -> Tensor:
    """Strength (B, H, W) of the edges of (B, 3, H, W): the norm of the central differences over all colours."""
    padded = F.pad(image, [1] * 4, mode="replicate")
    horizontal = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    vertical = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    return (horizontal.square() + vertical.square()).sum(1).sqrt()


def _grey(image: Tensor) -> Tensor:
    return (image * torch.tensor([0.3, 0.55, 0.15])[None, :, None, None]).sum(1, keepdim=True)


def _saturate(image: Tensor, amount: float) -> Tensor:
    return torch.lerp(_grey(image).expand_as(image), image, amount)


def _lines(flat: Tensor, threshold: float, softness: float) -> Tensor:
    return torch.sigmoid((_edges(flat) - threshold) / softness).unsqueeze(1)


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
    washed = _blur(flat, 1) * (0.6 + 0.4 * shade.unsqueeze(1))
    washed = _saturate(washed, 1.35) * 0.68 + 0.32
    pooled = 1 - 0.3 * _lines(_blur(flat, 1), 0.14, 0.04)  # pigment gathers at the edges of a wash
    return washed * pooled + 0.012 * grain[:, 1:2] + 0.035 * grain[:, 2:3]


def _comic(flat: Tensor, shade: Tensor, grain: Tensor) -> Tensor:
    lit = _saturate(flat, 1.5) * torch.where(shade.unsqueeze(1) < 0.93, 0.78, 1.08)
    levels = 5
    flat_tone = lit * levels
    poster = (flat_tone.floor() + torch.sigmoid((flat_tone - flat_tone.floor() - 0.5) * 12)) / levels
    return poster * (1 - 0.95 * _lines(flat, 0.2, 0.035))


def _oil(flat: Tensor, shade: Tensor, grain: Tensor) -> Tensor:
    thick = _blur(flat * shade.unsqueeze(1) ** 1.4, 1)
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
