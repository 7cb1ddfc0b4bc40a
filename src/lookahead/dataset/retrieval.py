"""Rank-1 retrieval: does a held-back picture find its own person among all people's photos?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lookahead.dataset.consistency import Sight, Verdict

Matrix = NDArray[np.float32]
_BLOCK = 1024  # rows of the similarity matrix at a time


def _units(rows: Matrix) -> Matrix:
    lengths: Matrix = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return rows / lengths


def _hits(probes: Matrix, own: NDArray[np.int64], sums: Matrix, held_back: bool) -> NDArray[np.bool_]:
    """Whether each probe (B, E) is nearest to its own person's mean photo, itself not counted in it if `held_back`."""
    scores = probes @ _units(sums).T  # (B, P)
    rows = np.arange(len(probes))
    mine = scores[rows, own]
    if held_back:
        mine = (probes * _units(sums[own] - probes)).sum(1)
    scores[rows, own] = -np.inf
    hits: NDArray[np.bool_] = mine > scores.max(1)
    return hits


def _share(probes: list[Sight], people: dict[int, int], sums: Matrix, held_back: bool) -> float:
    if not probes:
        return 0.0
    hits = 0
    for start in range(0, len(probes), _BLOCK):
        block = probes[start : start + _BLOCK]
        own = np.array([people[sight.identity] for sight in block])
        embeddings = np.stack([sight.embedding for sight in block if sight.embedding is not None])
        hits += int(_hits(embeddings, own, sums, held_back).sum())
    return hits / len(probes)


def rank_one(sights: Sequence[Sight], verdicts: Sequence[Verdict], plain: str) -> dict[str, float]:
    """Shares of kept photos and of kept stylised pictures whose nearest person, by mean photo, is their own.

    Each picture is held back in turn: a photo is left out of its own person's mean.
    """
    kept = [s for s, v in zip(sights, verdicts, strict=True) if v.kept and s.embedding is not None]
    photos = [sight for sight in kept if sight.style == plain]
    stylised = [sight for sight in kept if sight.style != plain]
    people = {identity: place for place, identity in enumerate(sorted({s.identity for s in photos}))}
    sums = np.zeros((len(people), len(photos[0].embedding) if photos else 0), dtype=np.float32)  # type: ignore[arg-type]
    for sight in photos:
        sums[people[sight.identity]] += sight.embedding
    return {"photos": _share(photos, people, sums, True), "stylised": _share(stylised, people, sums, False)}
