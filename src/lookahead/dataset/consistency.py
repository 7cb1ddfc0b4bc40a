"""Face checks: which pictures show a face, and the same person's as the other photos do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from insightface.app import FaceAnalysis
from insightface.app.common import Face as Found
from numpy.typing import NDArray

from lookahead.world import detect_faces

Array = NDArray[np.float32]
KEPT, NO_FACE, SEVERAL = "", "no face", "several faces"
UNLIKE, FEW = "unlike the person's photos", "too few pictures of the person"
REASONS = (NO_FACE, SEVERAL, UNLIKE, FEW)


class Limits(Protocol):
    """What a picture and a person need in order to be kept."""

    @property
    def keep_photo(self) -> float:
        """The least similarity of a photo to the person's other photos."""

    @property
    def keep_stylised(self) -> float:
        """The least similarity of a stylised picture to the person's photos."""

    @property
    def keep_images(self) -> int:
        """The least number of pictures of a person."""

    @property
    def second_face(self) -> float:
        """The area from which a further face counts, as a share of the largest one's."""


@dataclass(frozen=True)
class Face:
    """The largest face of a picture: box (4,) and landmarks (5, 2) in pixels, embedding (E,) of length 1.

    `second_face` is the area of the next largest one as a share of this one's: 0 where it is alone.
    """

    box: Array
    landmarks: Array
    embedding: Array
    second_face: float


@dataclass(frozen=True)
class Sight:
    """What the face check knows of one picture; `embedding` is None without a face."""

    identity: int
    style: str
    embedding: Array | None
    second_face: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """Similarity to the person's other photos and to a stranger's (None without a face), and why it is dropped."""

    similarity: float | None
    stranger: float | None
    reason: str

    @property
    def kept(self) -> bool:
        """Whether the picture is trained on."""
        return self.reason == KEPT


def unit(vector: Array) -> Array:
    """A vector scaled to length 1."""
    scaled: Array = (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
    return scaled


def _area(box: Array) -> float:
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))


def find_face(faces: FaceAnalysis, pixels: NDArray[np.uint8]) -> Face | None:
    """The largest face in a picture (H, W, 3), RGB, or None."""
    blue_first = np.ascontiguousarray(pixels[:, :, ::-1])
    boxes, landmarks = detect_faces(faces.models["detection"], blue_first)
    if not len(boxes):
        return None
    areas = [_area(box) for box in boxes]
    first, *others = np.argsort(areas)[::-1]
    found = Found(bbox=boxes[first, :4], kps=landmarks[first], det_score=boxes[first, 4])
    embedding = faces.models["recognition"].get(blue_first, found)
    second = areas[others[0]] / max(areas[first], 1e-12) if others else 0.0
    return Face(found.bbox.astype(np.float32), found.kps.astype(np.float32), unit(embedding), second)


def mean_photo(sights: Iterable[Sight], plain: str) -> Array | None:
    """The mean face (E,) of the photos among these pictures, of length 1; None if there is none."""
    photos = [s.embedding for s in sights if s.style == plain and s.embedding is not None]
    return unit(np.mean(photos, axis=0)) if photos else None


def _cosine(one: Array | None, other: Array | None) -> float | None:
    return None if one is None or other is None else float(one @ other)


def _reason(sight: Sight, similarity: float | None, limit: float) -> str:
    if sight.embedding is None:
        return NO_FACE
    if similarity is None:  # there is no other photo to compare it with
        return FEW
    return UNLIKE if similarity < limit else KEPT


def _compare(person: Sequence[Sight], stranger: Sequence[Sight], settings: Limits, plain: str) -> list[Verdict]:
    """Judge photos by the other photos, then the stylised pictures by the photos that were kept."""
    away = mean_photo(stranger, plain)
    photos = [sight for sight in person if sight.style == plain]
    likeness = {id(p): _cosine(p.embedding, mean_photo((o for o in photos if o is not p), plain)) for p in photos}
    kept = [p for p in photos if _reason(p, likeness[id(p)], settings.keep_photo) == KEPT]
    centre = mean_photo(kept, plain)
    verdicts = []
    for sight in person:
        is_photo = sight.style == plain
        similarity = likeness[id(sight)] if is_photo else _cosine(sight.embedding, centre)
        limit = settings.keep_photo if is_photo else settings.keep_stylised
        verdicts.append(Verdict(similarity, _cosine(sight.embedding, away), _reason(sight, similarity, limit)))
    return verdicts


def _drop_thin(person: Sequence[Sight], verdicts: list[Verdict], settings: Limits, plain: str) -> list[Verdict]:
    """Drop people with too few pictures; two photos are the least, so that a photo has another one as reference."""
    photos = sum(v.kept and s.style == plain for s, v in zip(person, verdicts, strict=True))
    if photos >= 2 and sum(v.kept for v in verdicts) >= settings.keep_images:
        return verdicts
    return [replace(v, reason=FEW) if v.kept else v for v in verdicts]


def judge(sights: Sequence[Sight], settings: Limits, plain: str) -> list[Verdict]:
    """Decide which pictures are kept: those that resemble their person's other photos enough.

    Args:
        sights: every picture, people one after the other.
        settings: least similarities, least pictures a person, and what counts as a second face.
        plain: the style of photos.
    """
    crowded = [sight.second_face > settings.second_face for sight in sights]
    people: dict[int, list[Sight]] = {}
    for sight, several in zip(sights, crowded, strict=True):
        # Whose face the largest of several is cannot be known: nothing is compared with it.
        seen = replace(sight, embedding=None) if several else sight
        people.setdefault(sight.identity, []).append(seen)
    groups = list(people.values())
    verdicts = []
    for i, person in enumerate(groups):
        stranger = groups[(i + 1) % len(groups)] if len(groups) > 1 else []
        verdicts += _drop_thin(person, _compare(person, stranger, settings, plain), settings, plain)
    return [replace(v, reason=SEVERAL) if several else v for v, several in zip(verdicts, crowded, strict=True)]


def _mean(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0


def summarise(
    sights: Sequence[Sight], verdicts: Sequence[Verdict], known: Sequence[str] = REASONS
) -> dict[str, object]:
    """The metrics of a dataset: similarities over kept pictures, shares over all by `known` reasons, and by style."""
    kept = [v for v in verdicts if v.kept]
    styles = list(dict.fromkeys(s.style for s in sights))
    reasons = Counter(v.reason for v in verdicts if not v.kept)
    return {
        "same_person": _mean(v.similarity for v in kept),
        "other_person": _mean(v.stranger for v in kept),
        "kept": len(kept) / len(verdicts),
        "images": len(kept),
        "people": len({s.identity for s, v in zip(sights, verdicts, strict=True) if v.kept}),
        "faces_found": 1 - sum(s.embedding is None for s in sights) / len(sights),
        "dropped": {reason: reasons[reason] for reason in known},
        "styles": {style: _style_summary(sights, verdicts, style, known) for style in styles},
    }


def _style_summary(
    sights: Sequence[Sight], verdicts: Sequence[Verdict], style: str, known: Sequence[str]
) -> dict[str, object]:
    own = [v for s, v in zip(sights, verdicts, strict=True) if s.style == style]
    reasons = Counter(v.reason for v in own)
    return {
        "images": reasons[KEPT],
        "same_person": _mean(v.similarity for v in own),
        "other_person": _mean(v.stranger for v in own),
        "kept": reasons[KEPT] / len(own),
        "dropped": {reason: reasons[reason] / len(own) for reason in known},
    }
