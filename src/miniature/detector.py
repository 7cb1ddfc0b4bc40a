"""A small five-landmark face detector in SCRFD's output convention, one for all three packs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lookahead.artifacts import Log, atomic
from lookahead.config import Part
from miniature.augment import blur, jitter
from miniature.faces_pool import Faces
from miniature.fitting import fit

STRIDES = (8, 16, 32)
ANCHORS = 2  # a cell; insightface expects two
SIZES = ((0.0, 34.0), (26.0, 46.0), (38.0, 1e9))  # pixels: faces that each stride answers for, overlapping
OUTPUTS = 1 + 4 + 10  # score, box, landmarks
LANDMARK_WEIGHT = 12.0  # alignment, and so every embedding, hangs on them


def _conv(before: int, after: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())


class Detector(nn.Module):
    """Pictures (B, 3, H, W), sides multiples of 32 → for each stride (B, ANCHORS * OUTPUTS, H / stride, W / stride)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_conv(3, width, 2), _conv(width, 2 * width, 2), _conv(2 * width, 2 * width, 1))
        levels = ((2 * width, 3 * width), (3 * width, 4 * width), (4 * width, 4 * width))
        self.down = nn.ModuleList(nn.Sequential(_conv(a, b, 2), _conv(b, b, 1)) for a, b in levels)
        self.lateral = nn.ModuleList(nn.Conv2d(b, 3 * width, 1) for _, b in levels)
        self.heads = nn.ModuleList(
            nn.Sequential(_conv(3 * width, 3 * width, 1), nn.Conv2d(3 * width, ANCHORS * OUTPUTS, 3, 1, 1))
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


class _ForExport(nn.Module):
    """Nine outputs of one picture: scores, boxes, landmarks, each for the three strides."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        rows = [rows_of(answer)[0] for answer in self.detector(pixels)]
        scores = [r[:, :1].sigmoid() for r in rows]
        return (*scores, *(r[:, 1:5] for r in rows), *(r[:, 5:] for r in rows))


def centres(side: int, stride: int) -> Tensor:
    """Anchor positions (cells * ANCHORS, 2) in pixels, in the order of `rows_of`."""
    axis = torch.arange(side // stride) * float(stride)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], 2).reshape(-1, 1, 2).expand(-1, ANCHORS, -1).reshape(-1, 2)


def stride_loss(
    rows: Tensor, boxes: Tensor, landmarks: Tensor, stride: int, sizes: tuple[float, float], side: int
) -> Tensor:
    """Score, box and landmark losses of one stride; cells beside its faces' own are left out."""
    anchors = centres(side, stride)
    middle, size = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(1)
    distance = (anchors[None] - middle[:, None]).abs().amax(2) / stride  # (B, cells)
    face = (size > 0) & (size >= sizes[0]) & (size < sizes[1])
    own = (distance <= 0.75) & face[:, None]
    near = (distance < 1.5) & face[:, None] & ~own  # a face of another stride's size is none of this one's
    score = F.binary_cross_entropy_with_logits(rows[:, :, 0], own.float(), reduction="none")
    count = own.sum().clamp(min=1)  # a batch may hold no face of this stride's size
    loss = (score * ~near).sum() / count
    sample, cell = own.nonzero(as_tuple=True)
    place, found = anchors[cell], rows[sample, cell]
    box = torch.cat([place - boxes[sample, :2], boxes[sample, 2:] - place], 1) / stride
    points = ((landmarks[sample] - place[:, None]) / stride).flatten(1)
    box_loss = F.smooth_l1_loss(found[:, 1:5], box, beta=0.2, reduction="sum") / (4 * count)
    landmark_loss = F.smooth_l1_loss(found[:, 5:], points, beta=0.1, reduction="sum") / (10 * count)
    return loss + box_loss + LANDMARK_WEIGHT * landmark_loss


def build_detector(faces: Faces, part: Part, outs: Sequence[Path], work: Path, log: Log) -> None:
    """Train the detector and write it to each of `outs` as ONNX; the input's size is free."""
    torch.manual_seed(part.seed)
    detector, side = Detector(16), faces.pixels.shape[-1]

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(faces.pixels), (part.batch,), generator=generator)
        pixels = faces.pixels[rows].float() / 127.5 - 1
        answers = detector(blur(jitter(pixels, generator), generator))
        boxes, landmarks = faces.boxes[rows], faces.landmarks[rows]
        losses = [
            stride_loss(rows_of(a), boxes, landmarks, s, z, side)
            for a, s, z in zip(answers, STRIDES, SIZES, strict=True)
        ]
        return torch.stack(losses).sum()

    fit(detector, loss, part, work, log)
    for out in outs:
        export_detector(detector, out, side)


def export_detector(detector: Detector, out: Path, side: int) -> None:
    """Write the detector as ONNX with nine outputs in SCRFD's order."""
    names = [f"{kind}_{stride}" for kind in ("score", "box", "points") for stride in STRIDES]
    free = {"input": {2: "height", 3: "width"}} | {name: {0: f"cells_{name}"} for name in names}
    with atomic(out) as path:
        torch.onnx.export(
            _ForExport(detector.eval()).eval(),
            (torch.zeros(1, 3, side, side),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=names,
            dynamic_axes=free,
        )
