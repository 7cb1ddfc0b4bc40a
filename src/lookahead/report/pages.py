"""Pictures in reports: the album of the first people, grids, and self-contained HTML pages."""

from __future__ import annotations

import base64
import io
import itertools
import mimetypes
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lookahead.artifacts import atomic, writing
from lookahead.evaluation.cells import FULL
from lookahead.evaluation.pictures import png, read_pngs
from lookahead.portraits import Person, open_picture
from lookahead.report.formats import number, title

ALBUM, REFERENCE = "album.parquet", "reference"  # the file, and the cell of reference photos
SHOT = ["person", "style", "scene", "repeat"]  # the same picture in every cell
COLUMNS = ["cell", "sampler", *SHOT, "caption", "identity", "detected", "image"]
TILE = 128  # pixels, the side of a picture in a grid
_GAP, _MARGIN, _LABEL, _INK = 6, 118, 62, "#2b2f36"


def make_album(table: pd.DataFrame, people: Sequence[Person], pictures: Mapping[str, Path], count: int) -> pd.DataFrame:
    """The references and every cell's pictures (PNG) of the first `count` people, of each cell's first training.

    The table has one row a picture, in the order in which each cell's pictures were drawn; `people` are by its numbers;
    `pictures` has for each cell the folder of the shards `<sampler>/<training_seed>/*.parquet`.
    """
    rows: list[Mapping[str, object]] = [
        {"cell": REFERENCE, "person": index, "style": "", "scene": "", "caption": "", "repeat": 0}
        | {"image": png(open_picture(person.reference))}
        for index, person in enumerate(people[:count])
    ]
    for (cell, sampler), every in table.groupby(["cell", "sampler"], sort=False):
        seed = every["training_seed"].iloc[0]
        wanted = every[(every["training_seed"] == seed) & (every["person"] < count)]  # the first that were drawn
        shards = sorted((pictures[str(cell)] / str(sampler) / str(seed)).glob("[0-9]*.parquet"))
        images = itertools.chain.from_iterable(map(read_pngs, shards))
        rows += wanted.assign(image=list(itertools.islice(images, len(wanted)))).to_dict("records")
    return pd.DataFrame(rows)[COLUMNS]


def thumbnail(image: bytes) -> Image.Image:
    """The middle of an album's picture as a square of TILE pixels."""
    return ImageOps.fit(Image.open(io.BytesIO(image)).convert("RGB"), (TILE, TILE), Image.Resampling.LANCZOS)


def save_grid(album: pd.DataFrame, labels: Mapping[str, str], path: Path, sampler: str = FULL) -> None:
    """Write a grid as PNG or JPEG, as the name ends: a row for the references and for each cell.

    The columns are a photo and a picture in another style of each person, from the same noise in every row.
    """
    images = album[album["cell"].eq(REFERENCE) | album["sampler"].eq(sampler)].set_index(["cell", *SHOT])["image"]
    first = album[album["cell"].eq(next(iter(labels))) & album["sampler"].eq(sampler) & album["repeat"].eq(0)]
    columns: list[tuple[int, str, str, int]] = []
    captions: list[str] = []
    for index, (_, shots) in enumerate(first.groupby("person")):
        styled = shots[shots["style"] != shots["style"].iloc[0]]
        chosen = [shots.iloc[0], *([styled.iloc[index % len(styled)]] if len(styled) else [])]
        columns += [tuple(shot[SHOT]) for shot in chosen]
        captions += [shot["caption"] for shot in chosen]
    rows = {REFERENCE: [images[REFERENCE, person, "", "", 0] for person, *_ in columns]}
    rows |= {label: [images[(cell, *shot)] for shot in columns] for cell, label in labels.items()}

    step = TILE + _GAP
    canvas = Image.new("RGB", (_MARGIN + step * len(columns), _GAP + step * len(rows) + _LABEL), "white")
    pen, large, small = ImageDraw.Draw(canvas), ImageFont.load_default(14), ImageFont.load_default(12)
    for top, (label, tiles) in zip(itertools.count(_GAP, step), rows.items(), strict=False):
        pen.multiline_text((_GAP, top + TILE / 2), textwrap.fill(label, 16), _INK, large, anchor="lm", spacing=3)
        for left, image in zip(itertools.count(_MARGIN, step), tiles, strict=False):
            canvas.paste(thumbnail(image), (left, top))
    for left, caption in zip(itertools.count(_MARGIN, step), captions, strict=False):
        place = (left + TILE / 2, canvas.height - _LABEL)
        pen.multiline_text(place, textwrap.fill(caption, 22), _INK, small, anchor="ma", align="center")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        canvas.save(path, quality=88)  # JPEG's; PNG ignores it


def people_of(album: pd.DataFrame, rows: Mapping[str, pd.DataFrame], names: Sequence[str]) -> list[dict[str, object]]:
    """Everybody in albums, as the macro `albums` of `page.html.j2` shows them.

    For each person the name, the reference, the prompts of the pictures that all of `rows` have, and by the labels of
    `rows` these pictures with their identities (NaN: no face).
    """
    references = album[album["cell"] == REFERENCE].set_index("person")["image"]
    first, *others = shots = {label: every.set_index(SHOT) for label, every in rows.items()}
    shared = [shot for shot in shots[first].index if all(shot in shots[other].index for other in others)]
    people: list[dict[str, object]] = []
    for person, group in itertools.groupby(shared, key=lambda shot: shot[0]):
        wanted, drawn = list(group), {}
        for label, every in shots.items():
            own = every.loc[wanted]
            identity = own["identity"].where(own["detected"] > 0)
            drawn[label] = list(zip(map(inline_thumbnail, own["image"]), identity, strict=True))
        shown = {"name": names[person], "reference": inline_thumbnail(references[person])}
        people.append(shown | {"heads": list(shots[first].loc[wanted, "caption"]), "rows": drawn})
    return people


def save_page(template: str, path: Path, content: Mapping[str, object]) -> None:
    """Render `templates/<template>`, which extends the frame `page.html.j2`, into one HTML file."""
    loader = PackageLoader("lookahead.report")
    form = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    form.filters.update(number=number, title_of=title, html=_html)
    with atomic(path) as temporary:
        temporary.write_text(form.get_template(template).render(content), encoding="utf-8")


def _html(table: pd.DataFrame) -> Markup:
    with pd.option_context("display.max_colwidth", None):
        return Markup(table.to_html(border=0, float_format="{:.3g}".format))


def inline_files(figures: Mapping[str, Path]) -> dict[str, str]:
    """PNG and JPEG files as data URIs."""
    return {name: _inline(path.read_bytes(), path.suffix) for name, path in figures.items()}


def inline_thumbnail(image: bytes) -> str:
    """A picture of an album as a small JPEG in a data URI."""
    buffer = io.BytesIO()
    thumbnail(image).save(buffer, "JPEG", quality=92, subsampling=0)
    return _inline(buffer.getvalue(), ".jpg")


def _inline(data: bytes, suffix: str) -> str:
    return f"data:{mimetypes.types_map[suffix]};base64,{base64.b64encode(data).decode('ascii')}"
