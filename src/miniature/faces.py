"""The face packs: one detector in SCRFD's output convention, and three recognisers that differ in all but the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lookahead.artifacts import atomic
from lookahead.models.recogniser import SIDE, align
from lookahead.world import device
from miniature.data import PHOTOS, PICTURES, Faces, to_pixels
from miniature.training import Part, blur, fit, jitter
from miniature.vocabulary import IDENTITY_SIZE

STRIDES = (8, 16, 32)
ANCHORS = 2  # a cell; insightface expects two
SIZES = ((0.0, 34.0), (26.0, 46.0), (38.0, 1e9))  # pixels: faces that each stride answers for, overlapping
OUTPUTS = 1 + 4 + 10  # score, box, landmarks
LANDMARK_WEIGHT = 12.0  # alignment, and so every embedding, depends on them

EMBEDDING = 128
SCALE = 16.0  # of the cosines in the softmax
MARGIN = 0.25  # reached after half of the training
TRAIT_WEIGHT = 4.0
LANDMARK_NOISE = 0.7  # pixels, so that a detector's errors matter little


def _conv(before: int, after: int, side: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(before, after, side, stride, side // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU())


def _export(network: nn.Module, side: int, out: Path, outputs: list[str], axes: dict[str, dict[int, str]]) -> None:
    """Write a network as ONNX; `axes` names the axes of input and outputs whose size is free."""
    options: Any = {"dynamo": False, "opset_version": 17, "input_names": ["input"], "output_names": outputs}
    with atomic(out) as path:
        inputs = (torch.zeros(1, 3, side, side),)
        torch.onnx.export(network.eval().cpu(), inputs, str(path), dynamic_axes=axes, **options)


class Detector(nn.Module):
    """Pictures (B, 3, H, W), sides multiples of 32 → for each stride (B, ANCHORS * OUTPUTS, H / stride, W / stride)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        stem = ((3, width, 2), (width, 2 * width, 2), (2 * width, 2 * width, 1))
        self.stem = nn.Sequential(*(_conv(a, b, 3, stride) for a, b, stride in stem))
        levels = ((2 * width, 3 * width), (3 * width, 4 * width), (4 * width, 4 * width))
        self.down = nn.ModuleList(nn.Sequential(_conv(a, b, 3, 2), _conv(b, b, 3, 1)) for a, b in levels)
        self.lateral = nn.ModuleList(nn.Conv2d(b, 3 * width, 1) for _, b in levels)
        self.heads = nn.ModuleList(
            nn.Sequential(_conv(3 * width, 3 * width, 3, 1), nn.Conv2d(3 * width, ANCHORS * OUTPUTS, 3, 1, 1))
            for _ in levels
        )

    def forward(self, pixels: Tensor) -> list[Tensor]:
        features, maps = self.stem(pixels), []
        for down in self.down:
            features = down(features)
            maps.append(features)
        merged = self.lateral[-1](maps[-1])
        answers = [self.heads[-1](merged)]
        for level in (1, 0):  # coarse to fine: each finer map sees what surrounds it
            merged = self.lateral[level](maps[level]) + F.interpolate(merged, scale_factor=2.0, mode="nearest")
            answers.insert(0, self.heads[level](merged))
        return answers


def rows_of(answer: Tensor) -> Tensor:
    """SCRFD's order: (B, ANCHORS * OUTPUTS, h, w) → (B, h * w * ANCHORS, OUTPUTS)."""
    return answer.permute(0, 2, 3, 1).reshape(len(answer), -1, OUTPUTS)


class _ScrfdOutputs(nn.Module):
    """Nine outputs of one picture: scores, boxes, landmarks, each for the three strides."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        rows = [rows_of(answer)[0] for answer in self.detector(pixels)]
        return (*(r[:, :1].sigmoid() for r in rows), *(r[:, 1:5] for r in rows), *(r[:, 5:] for r in rows))


def centres(side: int, stride: int) -> Tensor:
    """Anchor positions (cells * ANCHORS, 2) in pixels, in the order of `rows_of`."""
    axis = torch.arange(side // stride) * float(stride)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], 2).reshape(-1, 1, 2).expand(-1, ANCHORS, -1).reshape(-1, 2)


def stride_loss(
    rows: Tensor, boxes: Tensor, landmarks: Tensor, stride: int, sizes: tuple[float, float], side: int
) -> Tensor:
    """Score, box and landmark losses of one stride; the cells around a face's own do not count.

    Args:
        rows: (B, cells, OUTPUTS), what the detector says.
        boxes: (B, 4) in pixels, zeros where there is no face.
        landmarks: (B, 5, 2) in pixels.
        stride: pixels of a cell.
        sizes: of the faces that the stride answers for; others are negatives.
        side: of the picture, in pixels.
    """
    anchors = centres(side, stride).to(rows.device)
    middle, size = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(1)
    distance = (anchors[None] - middle[:, None]).abs().amax(2) / stride  # (B, cells)
    face = (size > 0) & (size >= sizes[0]) & (size < sizes[1])
    own = (distance <= 0.75) & face[:, None]
    near = (distance < 1.5) & face[:, None] & ~own
    score = F.binary_cross_entropy_with_logits(rows[:, :, 0], own.float(), reduction="none")
    count = own.sum().clamp(min=1)  # a batch may hold no face of this stride's size
    loss = (score * ~near).sum() / count
    sample, cell = own.nonzero(as_tuple=True)
    anchor, found = anchors[cell], rows[sample, cell]
    box = torch.cat([anchor - boxes[sample, :2], boxes[sample, 2:] - anchor], 1) / stride
    points = ((landmarks[sample] - anchor[:, None]) / stride).flatten(1)
    box_loss = F.smooth_l1_loss(found[:, 1:5], box, beta=0.2, reduction="sum") / (4 * count)
    landmark_loss = F.smooth_l1_loss(found[:, 5:], points, beta=0.1, reduction="sum") / (10 * count)
    return loss + box_loss + LANDMARK_WEIGHT * landmark_loss


def build_detector(faces: Faces, part: Part, outs: Sequence[Path], work: Path) -> None:
    """Train the detector and write it to each of `outs` as ONNX; the input's size is free."""
    torch.manual_seed(part.seed)
    detector, side = Detector(16), faces.pixels.shape[-1]

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(faces.pixels), (part.batch_size,), generator=generator)
        answers = detector(blur(jitter(to_pixels(faces.pixels[rows]), generator), generator))
        boxes, landmarks = faces.boxes[rows].to(device()), faces.landmarks[rows].to(device())
        losses = [
            stride_loss(rows_of(a), boxes, landmarks, s, z, side)
            for a, s, z in zip(answers, STRIDES, SIZES, strict=True)
        ]
        return torch.stack(losses).sum()

    fit(detector, loss, part, work)
    names = [f"{kind}_{stride}" for kind in ("score", "box", "points") for stride in STRIDES]
    axes = {"input": {2: "height", 3: "width"}} | {name: {0: f"cells_{name}"} for name in names}
    for out in outs:
        _export(_ScrfdOutputs(detector), side, out, names, axes)


@dataclass(frozen=True)
class Kind:
    """What differs between the recognisers."""

    widths: tuple[int, int, int]
    stem: int  # side of the first convolution
    depth: int  # convolutions after each reduction
    people: tuple[int, int]  # of the training people: first, and one after the last
    knows_traits: bool  # whether it also learns the renderer's traits


KINDS = {
    "loss": Kind((24, 48, 72), 7, 1, (0, 1400), True),
    "select": Kind((32, 48, 64), 5, 1, (500, 1900), True),
    "report": Kind((24, 40, 64), 7, 2, (1000, 2400), False),
}


class Recogniser(nn.Sequential):
    """Aligned crops (B, 3, 112, 112) in [-1, 1] → embeddings (B, 128)."""

    def __init__(self, kind: Kind) -> None:
        layers: list[nn.Module] = [*_conv(3, kind.widths[0], kind.stem, 4)]
        for before, after in zip(kind.widths, kind.widths[1:], strict=False):
            layers += _conv(before, after, 3, 2)
            for _ in range(kind.depth):
                layers += _conv(after, after, 3, 1)
        layers += [nn.Conv2d(kind.widths[-1], 20, 1), nn.Flatten(), nn.Linear(20 * (SIDE // 16) ** 2, EMBEDDING)]
        super().__init__(*layers)


def margin_loss(one: Tensor, other: Tensor, margin: float) -> Tensor:
    """Additive-margin softmax (CosFace) over the batch: each of `one` (B, E) must find its own of `other` (B, E)."""
    cosines = F.normalize(one, dim=1) @ F.normalize(other, dim=1).T
    logits = SCALE * (cosines - margin * torch.eye(len(one), device=one.device))
    answer = torch.arange(len(one), device=one.device)
    return (F.cross_entropy(logits, answer) + F.cross_entropy(logits.T, answer)) / 2


def _crops(faces: Faces, rows: Tensor, generator: torch.Generator) -> Tensor:
    """Aligned, slightly changed crops (B, 3, 112, 112) of the given pictures."""
    landmarks = faces.landmarks[rows]
    landmarks = landmarks + LANDMARK_NOISE * torch.randn(landmarks.shape, generator=generator)
    return align(blur(jitter(to_pixels(faces.pixels[rows]), generator), generator), landmarks.to(device()))


def build_recogniser(name: str, faces: Faces, part: Part, out: Path, work: Path) -> None:
    """Train one recogniser and write it to `out` as ONNX with one output, as insightface's packs hold it."""
    torch.manual_seed(part.seed)
    kind = KINDS[name]
    network, traits = Recogniser(kind), nn.Linear(EMBEDDING, IDENTITY_SIZE)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        count = kind.people[1] - kind.people[0]
        people = kind.people[0] + torch.randperm(count, generator=generator)[: part.batch_size]
        photo = torch.randint(PHOTOS, (part.batch_size,), generator=generator)
        second = (photo + torch.randint(1, PICTURES, (part.batch_size,), generator=generator)) % PICTURES
        rows = torch.cat([people * PICTURES + photo, people * PICTURES + second])
        embeddings = network(_crops(faces, rows, generator))
        one, other = embeddings.chunk(2)
        value = margin_loss(one, other, MARGIN * min(1.0, 2 * step / part.steps))
        if kind.knows_traits:
            identity = faces.identity[rows].to(device())
            value = value + TRAIT_WEIGHT * F.mse_loss(traits(embeddings), identity)
        return value

    fit(nn.ModuleDict({"network": network, "traits": traits}), loss, part, work)
    _export(network, SIDE, out, ["embedding"], {"input": {0: "batch"}, "embedding": {0: "batch"}})
