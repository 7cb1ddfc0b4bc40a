"""Pictures in reports: the album of the first people, grids, and self-contained HTML pages."""

from __future__ import annotations

import base64
import io
import itertools
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image, ImageDraw, ImageFont

from lookahead.artifacts import atomic, write_parquet, writing
from lookahead.errors import InputError
from lookahead.evaluation.cells import FULL
from lookahead.evaluation.drawing.pictures import png, read_pictures
from lookahead.portraits import Person, open_picture
from lookahead.report.formats import number, parameter, title

ALBUM, REFERENCE = "album.parquet", "reference"  # the file, and the cell of reference photos
SHOT = ["person", "style", "scene", "repeat"]  # the same picture in every cell
_COLUMNS = ["cell", "sampler", *SHOT, "identity", "detected", "image"]
TILE = 128  # pixels, the side of a picture in a grid
_GAP, _MARGIN, _LABEL, _INK = 6, 118, 30, "#2b2f36"
_GRID_QUALITY, _PAGE_QUALITY = 88, 92  # JPEG's


def make_album(table: pd.DataFrame, people: Sequence[Person], pictures: Path, count: int) -> pd.DataFrame:
    """The references and every cell's pictures (PNG) of the first `count` people, of each cell's first training.

    The table has one row a picture, in the order in which each cell's pictures were drawn; `people` are by its numbers;
    `pictures` holds the shards `<cell>/<sampler>/<training_seed>/*.parquet`.
    """
    rows: list[Mapping[str, object]] = [
        {"cell": REFERENCE, "person": index, "style": "", "scene": "", "repeat": 0}
        | {"image": png(open_picture(person.reference))}
        for index, person in enumerate(people[:count])
    ]
    for (cell, sampler), every in table.groupby(["cell", "sampler"], sort=False):
        seed = every["training_seed"].iloc[0]
        drawn = every[every["training_seed"] == seed].reset_index(drop=True)
        wanted = drawn[drawn["person"] < count]
        images = read_pictures(pictures / str(cell) / str(sampler) / str(seed))
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


def thumbnail(picture: Image.Image) -> Image.Image:
    """The middle of a picture as a square of TILE pixels."""
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.crop((left, top, left + side, top + side))
    return square.resize((TILE, TILE), Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Line:
    """One row of a grid: its label, its pictures, and a caption below each, or none."""

    label: str
    pictures: Sequence[Image.Image]
    captions: Sequence[str] = ()


def grid_lines(album: pd.DataFrame, labels: Mapping[str, str], sampler: str = FULL) -> list[Line]:
    """The grid of an album: of each person a photo and a picture in another style, the same ones in every row."""
    album = album[album["cell"].eq(REFERENCE) | album["sampler"].eq(sampler)]
    images = {str(cell): every.set_index(SHOT)["image"] for cell, every in album.groupby("cell")}
    first = album[(album["cell"] == next(iter(labels))) & (album["repeat"] == 0)]
    columns: list[tuple[int, str, str, int]] = []
    for index, (_, shots) in enumerate(first.groupby("person")):
        styled = shots[shots["style"] != shots["style"].iloc[0]]
        chosen = [shots.iloc[0], *([styled.iloc[index % len(styled)]] if len(styled) else [])]
        columns += [tuple(shot[SHOT]) for shot in chosen]
    lines = [Line(REFERENCE, [opened(images[REFERENCE][person, "", "", 0]) for person, *_ in columns])]
    lines += [Line(label, [opened(images[cell][shot]) for shot in columns]) for cell, label in labels.items()]
    captions = [f"{style}, {scene}" for _, style, scene, _ in columns]
    return [*lines[:-1], Line(lines[-1].label, lines[-1].pictures, captions)]


def save_grid(lines: Sequence[Line], path: Path) -> None:
    """Write rows of pictures, labelled on the left and captioned below, as PNG or JPEG, as the name ends."""
    tops = list(itertools.accumulate((TILE + (_LABEL if line.captions else _GAP) for line in lines), initial=_GAP))
    lefts = [_MARGIN + column * (TILE + _GAP) for column in range(max(len(line.pictures) for line in lines))]
    canvas = Image.new("RGB", (lefts[-1] + TILE + _GAP, tops[-1]), "white")
    pen, large, small = ImageDraw.Draw(canvas), ImageFont.load_default(14), ImageFont.load_default(12)
    for line, top in zip(lines, tops, strict=False):
        label = textwrap.fill(line.label, 16)
        pen.multiline_text((_GAP, top + TILE / 2), label, _INK, large, anchor="lm", spacing=3)
        for left, picture in zip(lefts, line.pictures, strict=False):
            canvas.paste(thumbnail(picture), (left, top))
        for left, caption in zip(lefts, line.captions, strict=False):
            pen.text((left + TILE / 2, top + TILE + 3), caption, _INK, small, anchor="ma")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(path, quality=_GRID_QUALITY)  # which PNG ignores


def save_page(template: str, path: Path, content: Mapping[str, object]) -> None:
    """Render `templates/<template>`, which extends the frame `page.html.j2`, into one HTML file."""
    loader = PackageLoader("lookahead.report")
    form = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    form.filters.update(number=number, parameter=parameter, title_of=title)
    with atomic(path) as temporary:
        temporary.write_text(form.get_template(template).render(content), encoding="utf-8")


def inline_file(path: Path) -> str:
    """A PNG or JPEG file as a data URI."""
    return _inline(path.read_bytes(), "png" if path.suffix == ".png" else "jpeg")


def inline_thumbnail(image: bytes) -> str:
    """A picture of an album as a small JPEG in a data URI."""
    buffer = io.BytesIO()
    thumbnail(opened(image)).save(buffer, "JPEG", quality=_PAGE_QUALITY, subsampling=0)
    return _inline(buffer.getvalue(), "jpeg")


def _inline(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
