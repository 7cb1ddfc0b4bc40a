"""Pictures that people bring: one reader for all, and folders with one folder of photos a person."""

from __future__ import annotations

import io
import math
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
_WHITE = (255, 255, 255, 255)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8; Pillow's own conversion would cut it off at white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image.convert("RGBA"))
    return image


def _check_header(image: Image.Image, max_pixels: int, min_side: int, max_aspect_ratio: float) -> None:
    short, long = sorted(image.size)
    size = f"{image.width} x {image.height} pixels"
    if short < min_side:
        raise InputError(f"is too small: {size}, {min_side} are needed")
    if long > max_aspect_ratio * short:
        raise InputError(f"is too narrow: {size}")
    if short * long > max_pixels:
        raise InputError(f"is too large: {size}, {max_pixels} may be read")
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise InputError("is animated: save one of its frames")


def open_picture(
    source: Path | bytes, max_pixels: int = MAX_PIXELS, min_side: int = 1, max_aspect_ratio: float = math.inf
) -> Image.Image:
    """A picture in RGB, turned upright by its EXIF data, on white where it is transparent."""
    name = str(source) if isinstance(source, Path) else "the picture"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged EXIF data and large pictures
            with Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=FORMATS) as image:
                _check_header(image, max_pixels, min_side, max_aspect_ratio)
                return _on_white(_eight_bits(ImageOps.exif_transpose(image))).convert("RGB")
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
    folders = sorted(path for path in folder.iterdir() if path.is_dir())
    if count is not None and len(folders) < count:
        raise InputError(
            f"{count} people are asked for, but {folder} holds only {len(folders)}: add people, or lower `people`"
        )
    return [_read_person(path) for path in folders[:count]]


def _read_person(folder: Path) -> Person:
    photos = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not photos:
        raise InputError(f"{folder} holds no photo ({', '.join(SUFFIXES)}): add one, or remove the folder")
    return Person(folder.name, photos[0], tuple(photos[1:]))
