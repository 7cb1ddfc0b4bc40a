"""Grids of pictures: rows of cells, columns of people and prompts."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lookahead.artifacts import writing

TILE = 128  # pixels, the side of a picture in a grid
_GAP, _MARGIN, _LABEL = 6, 118, 30
_INK = "#2b2f36"
_QUALITY = 88  # of JPEG


@dataclass(frozen=True)
class Line:
    """One row of a grid: its label, its pictures, and a caption below each, or none."""

    label: str
    pictures: Sequence[Image.Image]
    captions: Sequence[str] = ()


def save_grid(lines: Sequence[Line], path: Path) -> None:
    """Write rows of pictures, labelled on the left and captioned below, as PNG or JPEG, as the name ends.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    tops = list(itertools.accumulate((TILE + (_LABEL if line.captions else _GAP) for line in lines), initial=_GAP))
    columns = max(len(line.pictures) for line in lines)
    canvas = Image.new("RGB", (_MARGIN + columns * (TILE + _GAP), tops[-1]), "white")
    for line, top in zip(lines, tops, strict=False):
        _draw_line(canvas, line, top)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(path, quality=_QUALITY)  # which PNG ignores


def _draw_line(canvas: Image.Image, line: Line, top: int) -> None:
    pen, label = ImageDraw.Draw(canvas), textwrap.fill(line.label, 16)
    pen.multiline_text((_GAP, top + TILE / 2), label, _INK, ImageFont.load_default(14), anchor="lm", spacing=3)
    lefts = [_MARGIN + column * (TILE + _GAP) for column in range(len(line.pictures))]
    for left, picture in zip(lefts, line.pictures, strict=True):
        canvas.paste(thumbnail(picture), (left, top))
    for left, caption in zip(lefts, line.captions, strict=False):
        pen.text((left + TILE / 2, top + TILE + 3), caption, _INK, ImageFont.load_default(12), anchor="ma")


def thumbnail(picture: Image.Image) -> Image.Image:
    """The middle of a picture as a square of TILE pixels."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return square.resize((TILE, TILE), Image.Resampling.LANCZOS)
