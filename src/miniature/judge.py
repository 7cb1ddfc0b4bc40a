"""Who is on a picture, and what it shows: the pack `report` and the CLIP scorer, for the model card's figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from insightface.utils.face_align import norm_crop
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lookahead.config import Checkpoints
from lookahead.world import open_faces, open_scorer, quiet_alignment
from miniature.words import NOBODY, SCENES, STYLES, caption


def to_bgr(pixels: Tensor) -> list[NDArray[np.uint8]]:
    """Pictures (B, 3, H, W) in [-1, 1] as insightface takes them: uint8 (H, W, 3), blue first."""
    rgb = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    return [np.ascontiguousarray(picture[:, :, ::-1]) for picture in rgb]


def embed_at(recogniser: Any, pixels: Tensor, landmarks: Tensor) -> Tensor:
    """Unit embeddings (B, E) by an insightface recogniser of the faces at known landmarks (B, 5, 2) in pixels."""
    with quiet_alignment():
        crops = [norm_crop(p, marks.numpy(), 112) for p, marks in zip(to_bgr(pixels), landmarks, strict=True)]
    return F.normalize(torch.from_numpy(recogniser.get_feat(crops)), dim=1)


class Judge:
    """Recognises faces with pack `report`, and styles and scenes with the scorer."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        """Open both."""
        self._faces = open_faces(checkpoints.faces.report, checkpoints.faces.detection_size)
        self._scorer: Any = open_scorer(checkpoints)

    def found(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embeddings (B, E) of the largest faces, zeros where none is found, and which were found (B,)."""
        rows = []
        for picture in to_bgr(pixels):
            with quiet_alignment():
                faces = self._faces.get(picture, max_num=1, det_metric="max")
            rows.append(torch.from_numpy(faces[0].normed_embedding) if faces else None)
        size = next(len(row) for row in rows if row is not None) if any(row is not None for row in rows) else 1
        found = torch.tensor([row is not None for row in rows])
        return torch.stack([torch.zeros(size) if row is None else row for row in rows]), found

    def at(self, pixels: Tensor, landmarks: Tensor) -> Tensor:
        """Unit embeddings (B, E) of the faces at known landmarks (B, 5, 2) in pixels."""
        return embed_at(self._faces.models["recognition"], pixels, landmarks)

    @torch.no_grad()
    def style_and_scene(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The most likely style and scene of each picture, (B,) int64 each, over all captions of "a person"."""
        texts = [caption(style, scene, NOBODY) for style in STYLES for scene in SCENES]
        text = F.normalize(self._scorer.model.encode_text(self._scorer.tokenizer(texts)), dim=1)
        images = [Image.fromarray(picture[:, :, ::-1]) for picture in to_bgr(pixels)]
        seen = self._scorer.model.encode_image(torch.stack([self._scorer.preprocess(image) for image in images]))
        likely = (100 * F.normalize(seen, dim=1) @ text.T).softmax(1).view(len(pixels), len(STYLES), len(SCENES))
        return likely.sum(2).argmax(1), likely.sum(1).argmax(1)


def rank_one(queries: Tensor, gallery: Tensor, answer: Tensor) -> float:
    """Share of queries (B, E) whose most similar of the gallery (N, E) is the row `answer` (B,); zeros never match."""
    best = (queries @ gallery.T).argmax(1)
    return float(((best == answer) & (queries.norm(dim=1) > 0)).float().mean())
