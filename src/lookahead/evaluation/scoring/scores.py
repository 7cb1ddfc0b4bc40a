"""The scores of every picture by recognisers, CLIP and colours: the columns of the long table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from lookahead.artifacts import code_digest, digest, digest_paths
from lookahead.config import Checkpoints
from lookahead.evaluation.drawing.cache import checkpoint_digest
from lookahead.evaluation.drawing.plan import Plan, Shot
from lookahead.evaluation.scoring.faces import (
    PACKS,
    Embeddings,
    FaceReader,
    read_others,
    read_references,
    similarity,
)
from lookahead.evaluation.scoring.layout import Array, colours, leaking
from lookahead.evaluation.scoring.text import Texts, embed_pictures, embed_texts, score
from lookahead.portraits import Person, open_picture
from lookahead.world import Scorer, open_scorer

CODE = ("evaluation/scoring", "portraits.py", "world")  # what can change a score
Row = dict[str, int | float | str]


@dataclass(frozen=True)
class Scorers:
    """Everything that pictures are scored by; embeddings, and what is particular to a reference, are by person."""

    faces: FaceReader
    references: list[Embeddings]
    others: list[list[Embeddings]]
    particular: list[Array]
    scorer: Scorer
    texts: Texts


def open_scorers(checkpoints: Checkpoints, people: Sequence[Person], plan: Plan) -> Scorers:
    """The recognisers and CLIP, with the faces and captions that pictures are compared to.

    Raises:
        InputError: a reference photo shows no face, or a checkpoint is missing.
    """
    faces, scorer = FaceReader(checkpoints.faces), open_scorer(checkpoints)
    references, others = read_references(faces, people), read_others(faces, people)
    particular = [leaking(open_picture(p.reference), [open_picture(path) for path in p.others]) for p in people]
    return Scorers(faces, references, others, particular, scorer, embed_texts(scorer, plan.prompts))


def score_key(checkpoints: Checkpoints, people: Sequence[Person], plan: Plan) -> str:
    """What decides the scores of given pictures.

    Raises:
        InputError: a photo or a file of a checkpoint cannot be read.
    """
    photos = digest_paths([path for person in people for path in (person.reference, *person.others)])
    counts = [len(person.others) for person in people]
    return digest(models_of(checkpoints), photos, counts, plan.prompts, code_digest(*CODE))[:32]


def models_of(checkpoints: Checkpoints) -> dict[str, object]:
    """The models that score, by their contents."""
    packs = checkpoints.faces.model_dump(exclude={"detection_size"})
    return {
        "recognisers": {role: checkpoint_digest(pack) for role, pack in packs.items()},
        "detection_size": checkpoints.faces.detection_size,
        "scorer": [checkpoint_digest(checkpoints.scorer.model), checkpoints.scorer.pretrained],
    }


def score_shots(plan: Plan, shots: Sequence[Shot], images: list[Image.Image], scorers: Scorers) -> list[Row]:
    """One row of scores for each picture of a batch."""
    style = torch.tensor([plan.style_number(shot) for shot in shots])
    scene = torch.tensor([plan.scene_number(shot) for shot in shots])
    columns = score(embed_pictures(scorers.scorer, images), scorers.texts, style, scene)
    rows = []
    for i, (shot, image) in enumerate(zip(shots, images, strict=True)):
        texts = {name: float(values[i]) for name, values in columns.items()}
        leak = float(colours(image) @ scorers.particular[shot.person])
        rows.append(shot.row() | texts | face_scores(image, shot.person, scorers) | {"leak": leak})
    return rows


def face_scores(image: Image.Image, person: int, scorers: Scorers) -> Row:
    """Whether a face is found, and its cosine to the person's reference by each pack.

    A missing face has identity 0. `identity_detected` is NaN then. `identity_other` is the mean cosine to the person's
    other photos, NaN if there are none; `copied` is what identity is above it.
    """
    face = scorers.faces.read(np.asarray(image))
    own, others = scorers.references[person], scorers.others[person]
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
