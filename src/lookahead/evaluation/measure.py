"""What recognisers and CLIP say of every picture: the table `per_image.parquet`."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from lookahead.evaluation.faces import PACKS, Embeddings, FaceReader, similarity
from lookahead.evaluation.plan import Plan, Shot
from lookahead.evaluation.scoring import Texts, embed_pictures, score
from lookahead.world import Scorer

Row = dict[str, int | float | str]


@dataclass(frozen=True)
class Judges:
    """Everything that pictures are judged by; embeddings are by person."""

    faces: FaceReader
    references: list[Embeddings]
    others: list[list[Embeddings]]
    scorer: Scorer
    texts: Texts


def measure(method: str, plan: Plan, pictures: Iterable[Image.Image], judges: Judges, batch: int) -> Iterator[Row]:
    """One row for every picture of a method, in the order of the plan.

    Args:
        method: its name, a column of the rows.
        plan: the shots that the pictures show.
        pictures: as many as there are shots.
        judges: recognisers, references, CLIP.
        batch: pictures that CLIP sees at once.
    """
    pairs = zip(plan.shots, pictures, strict=True)
    with tqdm(total=len(plan.shots), desc=f"judging, {method}", unit="picture") as bar:
        while chunk := list(itertools.islice(pairs, batch)):
            shots, images = [shot for shot, _ in chunk], [image for _, image in chunk]
            for shot, image, scores in zip(shots, images, _scores(plan, shots, images, judges), strict=True):
                yield {"method": method} | shot.row() | scores | face_row(image, shot.person, judges)
            bar.update(len(chunk))


def face_row(image: Image.Image, person: int, judges: Judges) -> Row:
    """Whether a face is found, and its cosine to the person's reference by each pack.

    A missing face has identity 0. `identity_detected` is NaN then. `identity_other` is the mean cosine to the person's
    other photos, NaN if there are none; `copied` is what identity is above it.
    """
    face = judges.faces.read(np.asarray(image))
    own, others = judges.references[person], judges.others[person]
    by_pack = {pack: similarity(face, own, pack) if face else 0.0 for pack in PACKS}
    to_others = [similarity(face, other, "report") if face else 0.0 for other in others]
    to_other = float(np.mean(to_others)) if to_others else float("nan")
    return {
        "detected": float(face is not None),
        "identity": by_pack["report"],
        "identity_select": by_pack["select"],
        "identity_loss": by_pack["loss"],
        "identity_detected": by_pack["report"] if face else float("nan"),
        "identity_other": to_other,
        "copied": by_pack["report"] - to_other,
    }


def _scores(plan: Plan, shots: list[Shot], images: list[Image.Image], judges: Judges) -> list[Row]:
    style = torch.tensor([plan.style_number(shot) for shot in shots])
    scene = torch.tensor([plan.scene_number(shot) for shot in shots])
    columns = score(embed_pictures(judges.scorer, images), judges.texts, style, scene)
    return [{name: float(values[i]) for name, values in columns.items()} for i in range(len(shots))]
