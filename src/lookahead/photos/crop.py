"""Cuts the face out of a photo as a square, and takes its landmarks along."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from lookahead.config import Photos
from lookahead.dataset.consistency import Face
from lookahead.dataset.shards import Pixels
from lookahead.photos.pictures import UnusableError


@dataclass(frozen=True)
class Square:
    """Where a square lies in a photo, in pixels."""

    left: int
    top: int
    side: int


def _along(middle: float, side: int, length: int) -> int:
    return int(min(max(round(middle - side / 2), 0), length - side))


def face_square(face: Face, height: int, width: int, margin: float) -> Square:
    """The square around a face, `margin` times as wide as its box where the photo allows it."""
    left, top, right, bottom = face.box.tolist()
    side = max(1, min(round(margin * max(right - left, bottom - top)), height, width))
    return Square(_along((left + right) / 2, side, width), _along((top + bottom) / 2, side, height), side)


def check_face(face: Face | None, settings: Photos) -> Face:
    """The face of a photo that shows one, and large enough.

    Raises:
        UnusableError: there is none, a further one, or it is small.
    """
    if face is None:
        raise UnusableError("no face")
    if face.second_face > settings.second_face:
        raise UnusableError("several faces")
    size = max(face.box[2] - face.box[0], face.box[3] - face.box[1])
    if size < settings.smallest_face:
        raise UnusableError(f"too small a face: {size:.0f} pixels, {settings.smallest_face} are needed")
    return face


def crop_face(pixels: Pixels, face: Face, settings: Photos, resolution: int) -> tuple[Pixels, Face]:
    """The square around the face at the world's resolution (R, R, 3), and the face in it."""
    square = face_square(face, pixels.shape[0], pixels.shape[1], settings.margin)
    cut = pixels[square.top : square.top + square.side, square.left : square.left + square.side]
    sized = np.asarray(Image.fromarray(cut).resize((resolution, resolution), Image.Resampling.LANCZOS))
    scale, corner = resolution / square.side, np.array([square.left, square.top], dtype=np.float32)
    points = ((face.landmarks - corner) * scale).astype(np.float32)
    box = ((face.box - np.tile(corner, 2)) * scale).astype(np.float32)
    return sized, Face(box, points, face.embedding, face.second_face)
