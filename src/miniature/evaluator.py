"""Who is on a picture and what it shows, by the pack `report` and the scorer; and how well the face packs know people.

All pictures and embeddings are on the CPU, where insightface runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from insightface.utils.face_align import norm_crop
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lookahead.config import Checkpoints
from lookahead.models.recogniser import SIDE
from lookahead.world import device, open_faces, open_scorer, quiet_alignment, to_uint8
from miniature.data import draw_faces, to_pixels
from miniature.faces import KINDS
from miniature.renderer import faceless
from miniature.vocabulary import SCENES, STYLES, captions_without_names, draw_identities

SEED = 99_000
PEOPLE = 200  # whom a recogniser has to tell apart
PICTURES = 300  # with a face, and as many without


def to_bgr(pixels: Tensor) -> list[NDArray[np.uint8]]:
    """Pictures (B, 3, H, W) in [-1, 1] as insightface takes them: uint8 (H, W, 3), blue first."""
    return [np.ascontiguousarray(picture[:, :, ::-1]) for picture in to_uint8(pixels)]


def embed_at(recogniser: Any, pixels: Tensor, landmarks: Tensor) -> Tensor:
    """Unit embeddings (B, E) by an insightface recogniser of the faces at known landmarks (B, 5, 2) in pixels."""
    with quiet_alignment():
        crops = [norm_crop(p, marks.numpy(), SIDE) for p, marks in zip(to_bgr(pixels), landmarks, strict=True)]
    return F.normalize(torch.from_numpy(recogniser.get_feat(crops)), dim=1)


def rank_one(queries: Tensor, gallery: Tensor, answer: Tensor) -> float:
    """Share of queries (B, E) whose most similar of the gallery (N, E) is the row `answer` (B,); zeros never match."""
    best = (queries @ gallery.T).argmax(1)
    return float(((best == answer) & (queries.norm(dim=1) > 0)).float().mean())


class Evaluator:
    """Recognises faces with pack `report`, and styles and scenes with the scorer."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        """Open both."""
        self._faces = open_faces(checkpoints.faces.report, checkpoints.faces.detection_size)
        self._scorer: Any = open_scorer(checkpoints)

    def found(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embeddings (B, E) of the largest faces, zeros where none is found, and which were found (B,)."""
        with quiet_alignment():
            faces = [self._faces.get(picture, max_num=1, det_metric="max") for picture in to_bgr(pixels)]
        rows = [torch.from_numpy(found[0].normed_embedding) if found else None for found in faces]
        size = next((len(row) for row in rows if row is not None), 1)
        found = torch.tensor([row is not None for row in rows])
        return torch.stack([torch.zeros(size) if row is None else row for row in rows]), found

    def at(self, pixels: Tensor, landmarks: Tensor) -> Tensor:
        """Unit embeddings (B, E) of the faces at known landmarks (B, 5, 2) in pixels."""
        return embed_at(self._faces.models["recognition"], pixels, landmarks)

    @torch.no_grad()
    def style_and_scene(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The most likely style and scene of each picture, (B,) int64 each, over all captions of "a person"."""
        model, tokens = self._scorer.model, self._scorer.tokenizer(captions_without_names())
        images = [self._scorer.preprocess(Image.fromarray(picture[:, :, ::-1])) for picture in to_bgr(pixels)]
        text = F.normalize(model.encode_text(tokens.to(device())), dim=1)
        seen = F.normalize(model.encode_image(torch.stack(images).to(device())), dim=1)
        likely = (100 * seen @ text.T).softmax(1).view(len(pixels), len(STYLES), len(SCENES)).cpu()
        return likely.sum(2).argmax(1), likely.sum(1).argmax(1)


def measure_faces(packs: Path, detection_size: int) -> dict[str, float]:
    """Detection, landmarks and recognition of all three packs, on people and pictures that no training saw."""
    figures = measure_detector(packs / "report", detection_size, PICTURES, SEED)
    for name in KINDS:
        figures |= {f"{name}_{key}": value for key, value in measure_recogniser(packs / name, detection_size).items()}
    return figures


def measure_detector(pack: Path, detection_size: int, pictures: int, seed: int) -> dict[str, float]:
    """Found faces, false finds in empty scenes, and the mean landmark error as a share of the face's width."""
    detector = open_faces(str(pack), detection_size).models["detection"]
    generator = torch.Generator().manual_seed(seed)
    styles = torch.randint(len(STYLES), (pictures,), generator=generator)
    wide = draw_faces(draw_identities(pictures, generator), styles, generator, "wide")
    errors = []
    for picture, marks, box in zip(to_bgr(to_pixels(wide.pixels)), wide.landmarks, wide.boxes, strict=True):
        boxes, points = detector.detect(picture, max_num=1, metric="max")
        if len(boxes):
            errors.append((torch.from_numpy(points[0]) - marks).norm(dim=1).mean() / (box[2] - box[0]))
    number = torch.arange(pictures)
    empty = faceless(number % len(SCENES), number // len(SCENES) % len(STYLES), generator)
    false = sum(len(detector.detect(picture)[0]) > 0 for picture in to_bgr(empty))
    return {
        "detector_found": len(errors) / pictures,
        "detector_false": false / pictures,
        "detector_landmark_error": float(torch.stack(errors).mean()),
    }


def measure_recogniser(pack: Path, detection_size: int, seed: int = SEED + 1) -> dict[str, float]:
    """Rank-1 among PEOPLE from photo to photo and to each style, and the similarity of the same and of others."""
    recogniser = open_faces(str(pack), detection_size).models["recognition"]
    generator = torch.Generator().manual_seed(seed)
    people = draw_identities(PEOPLE, generator)

    def embedded(style: int) -> Tensor:
        drawn = draw_faces(people, torch.full((PEOPLE,), style), generator, "portrait")
        return embed_at(recogniser, to_pixels(drawn.pixels), drawn.landmarks)

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
