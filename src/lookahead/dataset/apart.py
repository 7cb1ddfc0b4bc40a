"""Nobody of an evaluation is in the dataset: names are compared before anything is drawn, faces afterwards."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lookahead.config import Checkpoints
from lookahead.dataset.consistency import Array, Sight, Verdict, find_face, mean_photo
from lookahead.dataset.shards import Pixels
from lookahead.errors import InputError
from lookahead.world import open_faces, quiet_alignment

EVALUATED = "like a person of the evaluation"
Portraits = Iterable[tuple[Path, Pixels]]  # the folder of each person of the evaluation, and the reference photo


@dataclass(frozen=True)
class Evaluated:
    """The people of the evaluation: their folders, and the faces (N, E) of their reference photos, of length 1."""

    folders: list[Path]
    faces: Array


def read_evaluated(checkpoints: Checkpoints, portraits: Portraits) -> Evaluated:
    """Look at the reference photos with pack `select`, which judges the dataset, too.

    Raises:
        InputError: no face is found in one of them, or the pack is missing or damaged.
    """
    faces = open_faces(checkpoints.faces.select, checkpoints.faces.detection_size)
    with quiet_alignment():
        found = [(folder, find_face(faces, pixels)) for folder, pixels in portraits]
    lost = [str(folder) for folder, face in found if face is None]
    if lost:
        raise InputError(
            f"no face is found in the first photo of {', '.join(lost)}, so that nobody can be kept apart from them: "
            "replace it, or remove the person"
        )
    embeddings = [face.embedding for _, face in found if face is not None]
    return Evaluated([folder for folder, _ in found], np.stack(embeddings) if embeddings else np.zeros((0, 1), "f4"))


def _words(name: str) -> str:
    return " ".join(re.split(r"[\W_]+", name.casefold())).strip()


def check_names(names: Collection[str], evaluated: Evaluated) -> None:
    """Compare the names to draw with the names of the folders; case, spaces, - and _ make no difference.

    Raises:
        InputError: somebody has both.
    """
    folders = {_words(folder.name): folder for folder in evaluated.folders}
    for name in sorted(names):
        if _words(name) in folders:
            raise InputError(
                f"{name!r} is to be drawn, and is a person of the evaluation: {folders[_words(name)]}; take one of the "
                "two away, the name from the prompts file or the folder from the portraits"
            )


def likenesses(sights: Sequence[Sight], verdicts: Sequence[Verdict], plain: str, faces: Array) -> dict[int, float]:
    """How similar each person's mean kept photo is to the most similar one of the `faces` (N, E)."""
    people: dict[int, list[Sight]] = {}
    for sight, verdict in zip(sights, verdicts, strict=True):
        if verdict.kept:
            people.setdefault(sight.identity, []).append(sight)
    means = ((identity, mean_photo(kept, plain)) for identity, kept in people.items())
    return {identity: float((faces @ mean).max()) for identity, mean in means if mean is not None and len(faces)}


def drop_evaluated(
    sights: Sequence[Sight], verdicts: Sequence[Verdict], likeness: Mapping[int, float], limit: float
) -> list[Verdict]:
    """Drop whatever was kept of people whose likeness to a person of the evaluation is above the limit."""
    return [
        replace(v, reason=EVALUATED) if v.kept and likeness.get(s.identity, -1.0) > limit else v
        for s, v in zip(sights, verdicts, strict=True)
    ]
