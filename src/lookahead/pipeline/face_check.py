"""The check that a portrait shows one face, and the crop around it."""

from __future__ import annotations

import numpy as np
from insightface.app import FaceAnalysis
from numpy.typing import NDArray
from PIL import Image

from lookahead.config import Checkpoints
from lookahead.errors import InputError
from lookahead.world import detect_faces, open_faces

Boxes = NDArray[np.float32]  # (F, 5): left, top, right, bottom in pixels, and the detector's confidence


class FaceCheck:
    """Accepts a portrait that shows one face of a sufficient size, by the detector of pack `loss`."""

    def __init__(self, checkpoints: Checkpoints, min_face_size: float) -> None:
        """Open the detector; `min_face_size` is a face's least height as a share of the picture's shorter side."""
        faces: FaceAnalysis = open_faces(checkpoints.faces.loss, checkpoints.faces.detection_size)
        self._detector, self._min_face_size = faces.models["detection"], min_face_size

    def boxes(self, portrait: Image.Image) -> Boxes:
        """All detected faces, by falling confidence."""
        return detect_faces(self._detector, np.ascontiguousarray(np.asarray(portrait)[:, :, ::-1]))[0]

    def __call__(self, portrait: Image.Image, name: str) -> Image.Image:
        """The portrait's largest square, as near to centred on the face as the picture allows."""
        boxes = self.boxes(portrait)
        if len(boxes) == 0:
            raise InputError(f"{name}: no face is found; use a photo that shows the face from the front, well lit")
        if len(boxes) > 1:
            raise InputError(f"{name}: {len(boxes)} faces are found; crop it to the one person")
        height, side = float(boxes[0, 3] - boxes[0, 1]), min(portrait.size)
        if height < self._min_face_size * side:
            share, least = f"{height / side:.0%}", f"{self._min_face_size:.0%}"
            raise InputError(f"{name}: the face is too small ({share} of the picture, at least {least}); crop closer")
        return square_around(portrait, boxes[0])


def square_around(portrait: Image.Image, box: Boxes) -> Image.Image:
    """The largest square of a picture, moved towards the middle of a box: the image encoder sees only a square."""
    side = min(portrait.size)
    middles = (float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2)
    left, top = (
        round(min(max(m - side / 2, 0), length - side)) for m, length in zip(middles, portrait.size, strict=True)
    )
    return portrait.crop((left, top, left + side, top + side))
