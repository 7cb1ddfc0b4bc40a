"""Grids of pictures: what people look at before they look at numbers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lookahead.artifacts import writing
from lookahead.evaluation.methods import METHODS, present
from lookahead.evaluation.plan import Plan
from lookahead.portraits import Person, read_photo

TILE = 128  # pixels, the side of a picture in a grid
_GAP, _MARGIN, _LABEL = 6, 118, 30
_INK = "#2b2f36"
_QUALITY = 88  # of JPEG


@dataclass(frozen=True)
class Line:
    """One row of a grid: a label, the pictures, and a caption under each, or none."""

    label: str
    pictures: list[Image.Image]
    captions: list[str]


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
        canvas.save(path, quality=_QUALITY)  # which PNG takes no notice of


def _draw_line(canvas: Image.Image, line: Line, top: int) -> None:
    pen = ImageDraw.Draw(canvas)
    pen.multiline_text((_GAP, top + TILE / 2), line.label, _INK, ImageFont.load_default(14), anchor="lm", spacing=3)
    lefts = [_MARGIN + column * (TILE + _GAP) for column in range(len(line.pictures))]
    for left, picture in zip(lefts, line.pictures, strict=True):
        canvas.paste(thumbnail(picture), (left, top))
    for left, caption in zip(lefts, line.captions, strict=False):
        pen.text((left + TILE / 2, top + TILE + 3), caption, _INK, ImageFont.load_default(12), anchor="ma")


def folded(label: str) -> str:
    """A label in lines of at most 16 letters."""
    lines = [""]
    for word in label.split():
        fits = len(lines[-1]) + len(word) < 16
        lines = [*lines[:-1], f"{lines[-1]} {word}".strip()] if fits else [*lines, word]
    return "\n".join(line for line in lines if line)


def thumbnail(picture: Image.Image) -> Image.Image:
    """The picture as a square of TILE pixels, its middle kept."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return square.resize((TILE, TILE), Image.Resampling.LANCZOS)


def people_lines(
    people: Sequence[Person], plan: Plan, pictures: Mapping[int, Mapping[str, Image.Image]], photos: int
) -> list[Line]:
    """One column a person: the reference, every method's photo, and every method's picture in one style.

    Args:
        people: those shown, the first of the evaluation.
        plan: the shots.
        pictures: by number of the shot, then by method.
        photos: prompts that ask for a photo; a person's stylised ones come after them.
    """
    chosen = [
        [i for i, shot in enumerate(plan.shots) if shot.person == p and not shot.repeat] for p in range(len(people))
    ]
    stylised = [photos + p % (len(shots) - photos) for p, shots in enumerate(chosen)]
    references = [Image.fromarray(read_photo(person.reference)) for person in people]
    lines = [Line("reference", references, [person.name for person in people])]
    for columns in ([shots[0] for shots in chosen], [shots[s] for shots, s in zip(chosen, stylised, strict=True)]):
        lines += [Line(folded(METHODS[m].name), [pictures[i][m] for i in columns], []) for m in present(pictures[0])]
        captions = [f"{plan.shots[i].style}, {plan.shots[i].scene}" for i in columns]
        lines[-1] = replace(lines[-1], captions=captions)
    return lines
