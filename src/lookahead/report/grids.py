"""Pictures in reports: the album, the first people's pictures of every cell in one small file, and grids of them."""

from __future__ import annotations

import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

from lookahead.artifacts import write_parquet, writing
from lookahead.errors import InputError
from lookahead.evaluation.drawing.pictures import png, read_pictures
from lookahead.portraits import Person, open_picture

ALBUM, REFERENCE = "album.parquet", "reference"  # the file, and the cell of reference photos
SHOT = ["person", "style", "scene", "repeat"]  # the same picture in every cell
_COLUMNS = ["cell", "sampler", *SHOT, "identity", "detected", "image"]
TILE = 128  # pixels, the side of a picture in a grid
_GAP, _MARGIN, _LABEL, _INK, _QUALITY = 6, 118, 30, "#2b2f36", 88  # the quality is JPEG's


def picture_folder(pictures: Path, cell: str, sampler: str, training_seed: int) -> Path:
    """The folder with the shards of one cell's pictures."""
    return pictures / cell / sampler / str(training_seed)


def make_album(table: pd.DataFrame, people: Sequence[Person], pictures: Path, count: int) -> pd.DataFrame:
    """The references and every cell's pictures (PNG) of the first `count` people, of each cell's first training.

    The table has one row a picture, in the order in which each cell's pictures were drawn; `people` are by its numbers.
    """
    rows: list[Mapping[str, object]] = [
        {"cell": REFERENCE, "person": number, "style": "", "scene": "", "repeat": 0}
        | {"image": png(open_picture(person.reference))}
        for number, person in enumerate(people[:count])
    ]
    for (cell, sampler), every in table.groupby(["cell", "sampler"], sort=False):
        seed = every["training_seed"].iloc[0]
        drawn = every[every["training_seed"] == seed].reset_index(drop=True)
        wanted = drawn[drawn["person"] < count]
        images = read_pictures(picture_folder(pictures, str(cell), str(sampler), int(seed)))
        kept = {i: png(image) for i, image in zip(range(wanted.index.max() + 1), images, strict=False)}
        rows += wanted.assign(image=[kept[i] for i in wanted.index]).to_dict("records")
    return pd.DataFrame(rows)[_COLUMNS]


def save_album(album: pd.DataFrame, path: Path) -> None:
    """Write an album; equal albums are equal bytes."""
    write_parquet(path, pa.Table.from_pandas(album, preserve_index=False))


def read_album(path: Path) -> pd.DataFrame:
    """Read an album."""
    try:
        return pq.read_table(path, columns=_COLUMNS).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is missing or damaged ({error}): run `lookahead evaluate` again") from None


def opened(image: bytes) -> Image.Image:
    """A picture of an album."""
    return Image.open(io.BytesIO(image)).convert("RGB")


@dataclass(frozen=True)
class Line:
    """One row of a grid: its label, its pictures, and a caption below each, or none."""

    label: str
    pictures: Sequence[Image.Image]
    captions: Sequence[str] = ()


def save_grid(lines: Sequence[Line], path: Path) -> None:
    """Write rows of pictures, labelled on the left and captioned below, as PNG or JPEG, as the name ends."""
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


def grid_lines(album: pd.DataFrame, labels: Mapping[str, str], sampler: str = "full") -> list[Line]:
    """The grid of an album: of each person a photo and a picture in another style, the same ones in every row."""
    first = album[(album["cell"] == next(iter(labels))) & (album["sampler"] == sampler) & (album["repeat"] == 0)]
    columns: list[tuple[object, ...]] = []
    for number, (_, shots) in enumerate(first.groupby("person")):
        styled = shots[shots["style"] != shots["style"].iloc[0]]
        chosen = [shots.iloc[0], *([styled.iloc[number % len(styled)]] if len(styled) else [])]
        columns += [tuple(shot[SHOT]) for shot in chosen]
    references = album[album["cell"] == REFERENCE].set_index("person")["image"]
    lines = [Line(REFERENCE, [opened(references[shot[0]]) for shot in columns])]
    for cell, label in labels.items():
        images = album[(album["cell"] == cell) & (album["sampler"] == sampler)].set_index(SHOT)["image"]
        lines.append(Line(label, [opened(images[shot]) for shot in columns]))
    captions = [f"{style}, {scene}" for _, style, scene, _ in columns]
    return [*lines[:-1], Line(lines[-1].label, lines[-1].pictures, captions)]
