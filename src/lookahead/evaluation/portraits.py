"""The people of an evaluation: folders of portraits, the first photo of each being the reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lookahead.errors import InputError

Pixels = NDArray[np.uint8]
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Person:
    """One person: the folder's name, the reference photo and the other photos."""

    name: str
    reference: Path
    others: tuple[Path, ...]


def read_people(folder: Path, count: int) -> list[Person]:
    """The first `count` people of a portrait folder, `<folder>/<person>/<photo>`, both in the order of their names.

    Raises:
        InputError: the folder is missing, has fewer people, or one of them has no photo.
    """
    if not folder.is_dir():
        raise InputError(
            f"the protocol's folder of portraits {folder} does not exist; it holds one folder of photos a person"
        )
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(folders) < count:
        raise InputError(
            f"{count} people are asked for, but {folder} holds only {len(folders)}: add people, or lower `people`"
        )
    return [_read_person(path) for path in folders[:count]]


def _read_person(folder: Path) -> Person:
    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDINGS)
    if not photos:
        raise InputError(f"{folder} holds no photo ({', '.join(_ENDINGS)}): add one, or remove the folder")
    return Person(folder.name, photos[0], tuple(photos[1:]))


def read_photo(path: Path) -> Pixels:
    """A photo as uint8 (H, W, 3), RGB.

    Raises:
        InputError: the file is no picture, or damaged.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(f"{path} cannot be read as a picture ({error}): replace it") from None
