"""The first people's pictures in one small file, with their references: what a comparison of evaluations shows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lookahead.artifacts import write_parquet
from lookahead.errors import InputError
from lookahead.evaluation.pictures import png, read_pictures
from lookahead.evaluation.plan import Plan
from lookahead.portraits import Person, read_photo

ALBUM = "album.parquet"
REFERENCE = "reference"  # the method of reference photos


@dataclass(frozen=True)
class Place:
    """Which picture of which person: equal in every method."""

    person: int
    style: str
    scene: str
    repeat: int


Album = dict[str, dict[Place, Image.Image]]  # by method; references have neither style nor scene


def save_album(people: Sequence[Person], plan: Plan, pictures: Path, methods: Sequence[str], work: Path) -> None:
    """Write `album.parquet`: the references and every method's pictures of the first people.

    Args:
        people: those shown.
        plan: the shots.
        pictures: the folder with one folder of shards a method.
        methods: their names.
        work: the folder to write to.
    """
    shots = [shot for shot in plan.shots if shot.person < len(people)]
    references = [Image.fromarray(read_photo(person.reference)) for person in people]
    rows = [_row(REFERENCE, Place(i, "", "", 0), picture) for i, picture in enumerate(references)]
    for method in methods:
        drawn = islice(read_pictures(pictures / method), len(shots))
        places = [Place(shot.person, shot.style, shot.scene, shot.repeat) for shot in shots]
        rows += [_row(method, place, picture) for place, picture in zip(places, drawn, strict=True)]
    write_parquet(work / ALBUM, pa.Table.from_pylist(rows))


def _row(method: str, place: Place, picture: Image.Image) -> Mapping[str, object]:
    return {"method": method, **vars(place), "image": png(picture)}


def read_album(path: Path) -> Album:
    """The pictures by method and place.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        rows = pq.read_table(path).to_pylist()
        album: Album = {}
        for row in rows:
            place = Place(row["person"], row["style"], row["scene"], row["repeat"])
            album.setdefault(row["method"], {})[place] = Image.open(io.BytesIO(row["image"])).convert("RGB")
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path} is missing or damaged ({error}): run `lookahead evaluate` again") from None
    return album
