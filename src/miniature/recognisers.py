"""Three face recognisers that differ in architecture, seed and training people; `report` learns from labels alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lookahead.artifacts import Log, atomic
from lookahead.config import Part
from lookahead.models.alignment import SIDE, align
from miniature.augment import blur, jitter
from miniature.faces_pool import PHOTOS, PICTURES, Faces
from miniature.fitting import fit
from miniature.people import IDENTITY_SIZE

EMBEDDING = 128
SCALE = 16.0  # of the cosines in the softmax
MARGIN = 0.25  # reached after half of the training
TRAIT_WEIGHT = 4.0
LANDMARK_NOISE = 0.7  # pixels, so that a detector's errors matter little


@dataclass(frozen=True)
class Kind:
    """What sets a recogniser apart from the others."""

    widths: tuple[int, int, int]
    stem: int  # side of the first convolution
    depth: int  # convolutions after each reduction
    people: tuple[int, int]  # of the pool: first, and one after the last
    knows_traits: bool  # whether it also learns the renderer's numbers


KINDS = {
    "loss": Kind((24, 48, 72), 7, 1, (0, 1400), True),
    "select": Kind((32, 48, 64), 5, 1, (500, 1900), True),
    "report": Kind((24, 40, 64), 7, 2, (1000, 2400), False),
}


class RecogniserNetwork(nn.Sequential):
    """Aligned crops (B, 3, 112, 112) in [-1, 1] → embeddings (B, 128)."""

    def __init__(self, kind: Kind) -> None:
        layers: list[nn.Module] = [*_block(3, kind.widths[0], kind.stem, 4)]
        for before, after in zip(kind.widths, kind.widths[1:], strict=False):
            layers += _block(before, after, 3, 2)
            for _ in range(kind.depth):
                layers += _block(after, after, 3, 1)
        layers += [nn.Conv2d(kind.widths[-1], 20, 1), nn.Flatten(), nn.Linear(20 * (SIDE // 16) ** 2, EMBEDDING)]
        super().__init__(*layers)


def _block(before: int, after: int, side: int, stride: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, side, stride, side // 2, bias=False), nn.BatchNorm2d(after), nn.ReLU()]


class _Student(nn.Module):
    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.network = RecogniserNetwork(kind)
        self.traits = nn.Linear(EMBEDDING, IDENTITY_SIZE)


def margin_loss(one: Tensor, other: Tensor, margin: float) -> Tensor:
    """Additive-margin softmax (CosFace) over the batch: each of `one` (B, E) must find its own of `other` (B, E)."""
    cosines = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T
    logits = SCALE * (cosines - margin * torch.eye(len(one)))
    answer = torch.arange(len(one))
    return (F.cross_entropy(logits, answer) + F.cross_entropy(logits.T, answer)) / 2


def crops_of(faces: Faces, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Aligned, slightly spoilt crops (B, 3, 112, 112) of the given pictures."""
    landmarks = faces.landmarks[rows]
    landmarks = landmarks + LANDMARK_NOISE * torch.randn(landmarks.shape, generator=generator)
    pixels = blur(jitter(faces.pixels[rows].float() / 127.5 - 1, generator), generator)
    return align(pixels, landmarks)


def build_recogniser(name: str, faces: Faces, part: Part, out: Path, work: Path, log: Log) -> None:
    """Train one recogniser and write it to `out` as ONNX; the batch's size is free."""
    torch.manual_seed(part.seed)
    kind, student = KINDS[name], _Student(KINDS[name])

    def loss(step: int, generator: torch.Generator) -> Tensor:
        people = kind.people[0] + torch.randperm(kind.people[1] - kind.people[0], generator=generator)[: part.batch]
        photo = torch.randint(PHOTOS, (part.batch,), generator=generator)
        second = (photo + torch.randint(1, PICTURES, (part.batch,), generator=generator)) % PICTURES
        rows = torch.cat([people * PICTURES + photo, people * PICTURES + second])
        embeddings = student.network(crops_of(faces, rows, generator))
        margin = MARGIN * min(1.0, 2 * step / part.steps)
        one, other = embeddings.chunk(2)
        value = margin_loss(one, other, margin)
        if kind.knows_traits:
            value = value + TRAIT_WEIGHT * F.mse_loss(student.traits(embeddings), faces.identity[rows])
        return value

    fit(student, loss, part, work, log)
    export_recogniser(student.network, out)


def export_recogniser(network: nn.Module, out: Path) -> None:
    """Write a recogniser as ONNX with one output, as insightface's packs hold it."""
    free = {"input": {0: "batch"}, "embedding": {0: "batch"}}
    with atomic(out) as path:
        torch.onnx.export(
            network.eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=["embedding"],
            dynamic_axes=free,
        )
