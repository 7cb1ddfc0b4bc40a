"""Face check: which pictures show a face, and the same person's as the other photos do.

Its columns are a row a picture, people one after the other: `identity`, `style`, `photo`, `found`, `second_face`; the
faces (N, E) beside them are zero where none was found.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from insightface.app import FaceAnalysis
from insightface.app.common import Face as Found
from numpy.typing import NDArray

from lookahead.config import Generate, Photos
from lookahead.portraits import Pixels
from lookahead.world import detect_faces

Array = NDArray[np.float32]
Rows = NDArray[np.int64]
KEPT, NO_FACE, SEVERAL, UNLIKE = "", "no face", "several faces", "unlike the person's photos"
FEW = "too few pictures of the person"
REASONS = [KEPT, NO_FACE, SEVERAL, UNLIKE, FEW]


@dataclass(frozen=True)
class Face:
    """The largest face of a picture: box (4,) and landmarks (5, 2) in pixels, embedding (E,) of length 1.

    `second_face` is the area of the next largest one as a share of this one's: 0 where it is alone.
    """

    box: Array
    landmarks: Array
    embedding: Array
    second_face: float


def unit(vector: Array) -> Array:
    """A vector scaled to length 1."""
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


def find_face(faces: FaceAnalysis, pixels: Pixels) -> Face | None:
    """The largest face in a picture (H, W, 3), RGB, or None."""
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])
    boxes, landmarks = detect_faces(faces.models["detection"], bgr)
    if not len(boxes):
        return None
    areas = (boxes[:, 2:4] - boxes[:, :2]).clip(0).prod(1).astype(float)
    first, *others = np.argsort(areas)[::-1]
    found = Found(bbox=boxes[first, :4], kps=landmarks[first], det_score=boxes[first, 4])
    embedding = unit(faces.models["recognition"].get(bgr, found))
    second = float(areas[others[0]] / max(areas[first], 1e-12)) if others else 0.0
    return Face(found.bbox.astype(np.float32), found.kps.astype(np.float32), embedding, second)


def _people(columns: pd.DataFrame) -> Rows:
    """Where each person's rows begin and end (P, 2)."""
    identity = columns["identity"].to_numpy()
    starts = np.flatnonzero(np.diff(identity, prepend=identity[:1] - 1))
    return np.stack([starts, np.append(starts[1:], len(identity))], axis=1)


def check_faces(columns: pd.DataFrame, embedding: Array, settings: Generate | Photos) -> pd.DataFrame:
    """Keep pictures that resemble their person's other photos, of people of whom enough pictures are kept.

    Photos are compared with the person's other photos, stylised pictures with the photos that are kept: the new columns
    are `similarity` to those photos and to a `stranger`'s, both NaN without a face, and `reason`.
    """
    photo, several = columns["photo"].to_numpy(), (columns["second_face"] > settings.max_second_face).to_numpy()
    usable = columns["found"].to_numpy() & ~several  # of several faces one cannot know whose the largest is
    similarity, stranger = np.full(len(photo), np.nan), np.full(len(photo), np.nan)
    limit = np.where(photo, settings.min_photo_similarity, settings.min_stylised_similarity)
    few = np.zeros(len(photo), bool)

    def compare(out: NDArray[np.float64], rows: Rows, references: Rows) -> None:
        if len(references):
            mean = unit(embedding[references].mean(axis=0))
            for row in rows:
                out[row] = embedding[row] @ mean

    people = _people(columns)
    for number, (start, stop) in enumerate(people):
        rows = start + np.flatnonzero(usable[start:stop])
        photos, stylised = rows[photo[rows]], rows[~photo[rows]]
        for row in photos:
            compare(similarity, photos[photos == row], photos[photos != row])
        compare(similarity, stylised, photos[similarity[photos] >= limit[photos]])
        kept = rows[similarity[rows] >= limit[rows]]
        few[kept] = photo[kept].sum() < 2 or len(kept) < settings.min_images  # a photo needs another as reference
        if len(people) > 1:
            begin, end = people[(number + 1) % len(people)]
            compare(stranger, rows, begin + np.flatnonzero(usable[begin:end] & photo[begin:end]))
    reasons = [several, ~usable, few | np.isnan(similarity), similarity < limit]
    codes = np.select(reasons, [REASONS.index(reason) for reason in (SEVERAL, NO_FACE, FEW, UNLIKE)], 0)
    reason = pd.Categorical.from_codes(codes, REASONS)
    return columns.assign(similarity=similarity, stranger=stranger, reason=reason)
