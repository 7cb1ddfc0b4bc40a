"""The pictures that reports show, of the first people: read from an evaluation's folders, kept in one small file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lookahead.artifacts import write_parquet
from lookahead.errors import InputError
from lookahead.evaluation.drawing.pictures import png, read_pictures
from lookahead.portraits import Person, open_picture
from lookahead.report.formats import FULL
from lookahead.report.grids import Line

ALBUM = "album.parquet"
REFERENCE = "reference"  # the cell of reference photos
SHOT = ["person", "style", "scene", "repeat"]  # the same picture in every cell
_COLUMNS = ["cell", "sampler", *SHOT, "identity", "detected", "image"]


def picture_folder(pictures: Path, cell: str, sampler: str, training_seed: int) -> Path:
    """The folder with the shards of one cell's pictures."""
    return pictures / cell / sampler / str(training_seed)


def make_album(table: pd.DataFrame, people: Sequence[Person], pictures: Path, count: int) -> pd.DataFrame:
    """The references and every cell's pictures (PNG) of the first `count` people, of each cell's first training.

    Args:
        table: one row a picture, in the order in which each cell's pictures were drawn.
        people: those of the table, by number.
        pictures: the folder of pictures (`picture_folder`).
        count: how many people.
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
    """Read an album.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return pq.read_table(path, columns=_COLUMNS).to_pandas()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is missing or damaged ({error}): run `lookahead evaluate` again") from None


def opened(image: bytes) -> Image.Image:
    """A picture of an album."""
    return Image.open(io.BytesIO(image)).convert("RGB")


def grid_lines(album: pd.DataFrame, labels: Mapping[str, str], sampler: str = FULL) -> list[Line]:
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
