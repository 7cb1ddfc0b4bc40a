"""Pictures that people bring: one reader for all, and folders with one folder of photos a person."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lookahead.errors import InputError

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")  # the reader of JPEG also opens MPO: phones' JPEGs with a second picture behind
MAX_PIXELS = 80_000_000
_MAX_ASPECT_RATIO = 10  # of a narrower picture detectors, which scale it to their square, would see a line
_WHITE = (255, 255, 255, 255)


def _to_rgb(image: Image.Image) -> Image.Image:
    """On white where it is transparent; grey of 16 bits is scaled to 8, which Pillow would cut off at white."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image.convert("RGBA"))
    return image.convert("RGB")


def _check_header(image: Image.Image, max_pixels: int, min_side: int) -> None:
    size = f"{image.width} x {image.height} pixels"
    if min(image.size) < min_side:
        raise InputError(f"is too small: {size}, {min_side} are needed")
    if max(image.size) > _MAX_ASPECT_RATIO * min(image.size):
        raise InputError(f"is too narrow: {size}")
    if image.width * image.height > max_pixels:
        raise InputError(f"is too large: {size}, {max_pixels} may be read")
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise InputError("is animated: save one of its frames")


def open_picture(source: Path | bytes, max_pixels: int = MAX_PIXELS, min_side: int = 1) -> Image.Image:
    """A picture in RGB, turned upright by its EXIF data, on white where it is transparent."""
    name = str(source) if isinstance(source, Path) else "the picture"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged EXIF data and large pictures
            with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS) as image:
                _check_header(image, max_pixels, min_side)
                return _to_rgb(ImageOps.exif_transpose(image))
    except InputError as error:
        raise InputError(f"{name} {error}") from None
    except FileNotFoundError:
        raise InputError(f"{name} does not exist: check the path") from None
    except UnidentifiedImageError:
        raise InputError(f"{name} is no JPEG, PNG or WebP picture: convert it") from None
    except Image.DecompressionBombError:
        raise InputError(f"{name} is too large: a decompression bomb, {max_pixels} pixels may be read") from None
    except Exception as error:  # damaged files make Pillow raise whatever its parsers meet
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0] or type(error).__name__
        raise InputError(f"{name} cannot be read ({reason[:80]}): replace it") from None


def read_photo(path: Path) -> Pixels:
    """A photo's pixels, as `open_picture` opens it."""
    return np.asarray(open_picture(path))


@dataclass(frozen=True)
class Person:
    """One person of a folder of portraits: the folder's name, the reference photo and the other photos."""

    name: str
    reference: Path
    others: tuple[Path, ...]


def read_people(folder: Path, count: int | None = None) -> list[Person]:
    """The first `count` people, or all, of `<folder>/<person>/<photo>`, both in the order of their names."""
    if not folder.is_dir():
        raise InputError(f"the folder of portraits {folder} does not exist; it holds one folder of photos a person")
    folders = sorted(path for path in folder.iterdir() if path.is_dir())[:count]
    if count is not None and len(folders) < count:
        raise InputError(
            f"{count} people are asked for, but {folder} holds only {len(folders)}: add people, or lower `people`"
        )
    people = []
    for one in folders:
        photos = sorted(path for path in one.iterdir() if path.suffix.lower() in SUFFIXES)
        if not photos:
            raise InputError(f"{one} holds no photo ({', '.join(SUFFIXES)}): add one, or remove the folder")
        people.append(Person(one.name, photos[0], tuple(photos[1:])))
    return people
