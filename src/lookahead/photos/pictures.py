"""Reads one photo as it is meant to be seen, or says why not; whatever the file holds, nothing else happens."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from lookahead.config import Photos
from lookahead.dataset.shards import Pixels

FORMATS = ("JPEG", "PNG", "WEBP")
_WHITE = (255, 255, 255, 255)


class UnusableError(Exception):
    """A photo that is not used; the message is the reason."""


def _check(image: Image.Image, settings: Photos) -> None:
    """Judge by the header alone, before any pixel is decoded."""
    short, long = sorted(image.size)
    if short < settings.smallest_face:
        raise UnusableError(f"too small: {image.width} x {image.height} pixels, {settings.smallest_face} are needed")
    if long > settings.aspect * short:
        raise UnusableError(f"too narrow: {image.width} x {image.height} pixels")
    if short * long > settings.most_pixels:
        raise UnusableError(f"too large: {image.width} x {image.height} pixels, {settings.most_pixels} may be read")
    # MPO: the JPEGs of phones, with a second picture behind the first.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise UnusableError("animated")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8; Pillow's own conversion would cut it off at white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image.convert("RGBA"))
    return image


def _read(path: Path, settings: Photos) -> Pixels:
    with Image.open(path, formats=FORMATS) as image:
        _check(image, settings)
        upright = ImageOps.exif_transpose(image)
        return np.asarray(_on_white(_eight_bits(upright)).convert("RGB"))


def _told(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [""])[0] or type(error).__name__
    return reason[:80]


def read_picture(path: Path, settings: Photos) -> Pixels:
    """A photo's pixels, turned upright by its EXIF data, on white where it is transparent.

    Raises:
        UnusableError: it is damaged, tiny, too large, very narrow, animated, or no picture at all.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged EXIF data and large pictures
            return _read(path, settings)
    except UnusableError:
        raise
    except Image.DecompressionBombError:
        raise UnusableError(f"too large: a decompression bomb, {settings.most_pixels} pixels may be read") from None
    except UnidentifiedImageError:
        raise UnusableError("no JPEG, PNG or WebP picture") from None
    except Exception as error:  # damaged files make Pillow raise whatever its parsers meet
        raise UnusableError(f"cannot be read ({_told(error)})") from None
