"""Tiny insightface packs: real ONNX files with random weights, in SCRFD's and ArcFace's conventions."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

SIZE = 64  # pixels, the detector's input
EMBEDDING = 32
STRIDES = (8, 16, 32)
LANDMARKS = torch.tensor([[26.0, 27], [38, 27], [32, 33], [27, 40], [37, 40]])  # pixels in SIZE x SIZE
BOX = torch.tensor([14.0, 12, 50, 52])
MIDDLE = torch.tensor([32.0, 32])


def _save(path: Path, network: nn.Module, side: int, name: str, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options |= {"input_names": [name], "opset_version": 17, "dynamo": False}
    torch.onnx.export(network.eval(), (torch.zeros(1, 3, side, side),), str(path), **options)


class Detector(nn.Module):
    """Sees one face near the centre, a little off by the picture's brightness, and none in the dark.

    With two faces it sees another one around the picture's corner. Doubled, it sees the first at the cell beside too,
    which overlaps too little for insightface to merge them.
    """

    def __init__(self, faces: int, doubled: bool) -> None:
        super().__init__()
        self.faces, self.doubled = faces, doubled

    def rows(self, stride: int) -> tuple[Tensor, Tensor, Tensor]:
        """Scores, boxes and landmarks of a stride's cells, two anchors each; only stride 16 sees anything."""
        side = SIZE // stride
        count = 2 * side**2
        scores = torch.zeros(count, 1)
        if stride == 16:
            scores[[2 * (2 * side + 2), 0][: self.faces]] = 1
            scores[2 * (2 * side + 1)] = 0.9 * self.doubled
        box = torch.cat([MIDDLE - BOX[:2], BOX[2:] - MIDDLE]) / stride
        points = (LANDMARKS - MIDDLE).flatten() / stride
        return scores, box.repeat(count, 1), points.repeat(count, 1)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """SCRFD's nine outputs: the scores of each stride, then the boxes, then the landmarks."""
        mean = pixels.mean((0, 1, 2, 3)).view(1, 1)
        seen, shift = torch.sigmoid(100 * (mean + 0.9)), 0.1 * mean
        scores, boxes, points = zip(*map(self.rows, STRIDES), strict=True)
        return (*(each * seen for each in scores), *(each + shift for each in (*boxes, *points)))


def save_detector(path: Path, faces: int = 1, doubled: bool = False) -> None:
    """Write a `Detector`."""
    outputs = [f"{kind}_{stride}" for kind in ("score", "box", "points") for stride in STRIDES]
    _save(path, Detector(faces, doubled), SIZE, "pixels", output_names=outputs)


def save_recogniser(path: Path, seed: int) -> None:
    """Write one convolution and one linear layer with random weights: 112 pixels in, EMBEDDING numbers out."""
    draw = np.random.default_rng(seed)
    network = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.Tanh(), nn.Flatten(), nn.Linear(8 * 49, EMBEDDING))
    kernel, matrix = draw.normal(size=(8, 3, 16, 16)) / 16, draw.normal(size=(EMBEDDING, 8 * 49)) / 20
    weights = (kernel, np.zeros(8), matrix, np.zeros(EMBEDDING))
    for parameter, weight in zip(network.parameters(), weights, strict=True):
        parameter.data = torch.tensor(weight, dtype=torch.float32)
    axes = {"data": {0: "N"}, "embedding": {0: "N"}}
    _save(path, network, 112, "data", output_names=["embedding"], dynamic_axes=axes)


def build_face_packs(root: Path) -> dict[str, str]:
    """Three packs below `root`, different in their recogniser's weights; the folder of each by its role."""
    for seed, role in enumerate(("loss", "select", "report")):
        save_detector(root / role / "detector.onnx")
        save_recogniser(root / role / "recogniser.onnx", seed)
    return {role: str(root / role) for role in ("loss", "select", "report")}
