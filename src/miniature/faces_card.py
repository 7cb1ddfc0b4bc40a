"""Measures the face packs through insightface on people and pictures that no training saw."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lookahead.world import open_faces
from miniature.faces_pool import Faces, draw_faces
from miniature.judge import embed_at, rank_one, to_bgr
from miniature.recognisers import KINDS
from miniature.renderer import draw_identities, faceless
from miniature.words import SCENES, STYLES

SEED = 99_000
PEOPLE = 200


def measure_faces(packs: Path, detection_size: int) -> dict[str, float]:
    """Detection, landmarks and recognition of all three packs."""
    figures = measure_detector(packs / "report", detection_size)
    for name in KINDS:
        figures |= {f"{name}_{key}": value for key, value in measure_recogniser(packs / name, detection_size).items()}
    return figures


def measure_detector(pack: Path, detection_size: int) -> dict[str, float]:
    """Found faces, false finds in empty scenes, and the mean landmark error as a share of the face's width."""
    faces = open_faces(str(pack), detection_size)
    generator = torch.Generator().manual_seed(SEED)
    styles = torch.randint(len(STYLES), (300,), generator=generator)
    wide = draw_faces(draw_identities(300, generator), styles, generator, "wide")
    found, errors = 0, []
    for picture, marks, box in zip(to_bgr(wide.pixels.float() / 127.5 - 1), wide.landmarks, wide.boxes, strict=True):
        seen = faces.models["detection"].detect(picture, max_num=1, metric="max")
        if len(seen[0]):
            found += 1
            errors.append((torch.from_numpy(seen[1][0]) - marks).norm(dim=1).mean() / (box[2] - box[0]))
    empty = faceless(torch.arange(300) % len(SCENES), torch.arange(300) // len(SCENES) % len(STYLES), generator)
    false = sum(len(faces.models["detection"].detect(picture)[0]) > 0 for picture in to_bgr(empty))
    return {
        "detector_found": found / 300,
        "detector_false": false / 300,
        "detector_landmark_error": float(torch.stack(errors).mean()),
    }


def measure_recogniser(pack: Path, detection_size: int) -> dict[str, float]:
    """Rank-1 among 200 people from photo to photo and to each style, and the similarity of the same and of others."""
    recogniser = open_faces(str(pack), detection_size).models["recognition"]
    generator = torch.Generator().manual_seed(SEED + 1)
    people = draw_identities(PEOPLE, generator)

    def embedded(style: int) -> Tensor:
        drawn: Faces = draw_faces(people, torch.full((PEOPLE,), style), generator, "portrait")
        return embed_at(recogniser, drawn.pixels.float() / 127.5 - 1, drawn.landmarks)

    gallery, answer = embedded(0), torch.arange(PEOPLE)
    queries = {name: embedded(index) for index, name in enumerate(STYLES)}
    figures = {f"rank_1_{name}": rank_one(seen, gallery, answer) for name, seen in queries.items()}
    drawings = [name for name in STYLES if name != "photo"]
    cosines = queries["photo"] @ gallery.T
    return figures | {
        "rank_1_drawings": sum(figures[f"rank_1_{name}"] for name in drawings) / len(drawings),
        "same_person": float(cosines.diagonal().mean()),
        "other_person": float((cosines.sum() - cosines.diagonal().sum()) / (PEOPLE * (PEOPLE - 1))),
    }
