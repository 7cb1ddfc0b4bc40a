"""Face packs under insightface's names, in SCRFD's and ArcFace's conventions: one face in each picture's middle."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.sdxl import iresnet

if TYPE_CHECKING:
    from benchmarks.rehearsal.checkpoints import Origin

STRIDES = (8, 16, 32)
BOX = torch.tensor([0.28, 0.24, 0.28, 0.32])  # from the middle to the left, top, right, bottom; shares of the side
LANDMARKS = torch.tensor([[-0.1, -0.08], [0.1, -0.08], [0.0, 0.02], [-0.08, 0.12], [0.08, 0.12]])
PACKS = {  # detector, recogniser, the folder in the archive, and the deeper network of antelopev2
    "buffalo_l": ("det_10g.onnx", "w600k_r50.onnx", "", None),
    "antelopev2": ("scrfd_10g_bnkps.onnx", "glintr100.onnx", "antelopev2/", (3, 13, 30, 3)),
    "buffalo_s": ("det_500m.onnx", "w600k_mbf.onnx", "", (1, 1, 1, 1)),
}


class Detector(nn.Module):
    """Sees one face in the middle of a square picture, moved a little by the picture's brightness."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """SCRFD's nine outputs, two anchors a cell: scores, boxes and landmarks of each stride."""
        shift = 0.01 * pixels.mean((0, 1, 2, 3)).view(1, 1)
        scores, boxes, points = list[Tensor](), list[Tensor](), list[Tensor]()
        for stride in STRIDES:
            cells = self.side // stride
            count = 2 * cells**2
            score = torch.zeros(count, 1)
            if stride == STRIDES[1]:
                score[2 * (cells // 2 * cells + cells // 2)] = 0.99
            scores.append(score + 0 * shift)
            boxes.append((BOX * self.side / stride).repeat(count, 1) + shift)
            points.append((LANDMARKS.flatten() * self.side / stride).repeat(count, 1) + shift)
        return (*scores, *boxes, *points)


def save(path: Path, network: nn.Module, side: int, outputs: list[str], batches: bool) -> None:
    """Write a network for pictures of a side as ONNX."""
    axes = {"input": {0: "N"}, **{name: {0: "N"} for name in outputs}} if batches else {}
    pixels = (torch.zeros(1, 3, side, side),)
    names: dict[str, Any] = {"input_names": ["input"], "output_names": outputs, "dynamic_axes": axes}
    torch.onnx.export(network.eval(), pixels, str(path), opset_version=11, dynamo=False, **names)


def write_pack(name: str, origin: Origin, recogniser: Mapping[str, tuple[int, ...]], side: int) -> None:
    """Write a pack's two files and its archive."""
    detector, embedder, inner, blocks = PACKS[name]
    sizes = dict(recogniser) | ({} if blocks is None else {"blocks": blocks})
    outputs = [f"{kind}_{stride}" for kind in ("score", "box", "points") for stride in STRIDES]

    def save_recogniser(path: Path) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(len(name))
            network = iresnet(sizes["widths"], sizes["blocks"])
            for key, tensor in network.state_dict().items():  # differing: torch writes equal tensors once
                if key.endswith("running_var"):
                    tensor.uniform_(0.5, 2.0)
                elif key.endswith("running_mean"):
                    tensor.normal_(0.0, 0.1)
            save(path, network, 112, ["embedding"], batches=True)

    def pack(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for file in (detector, embedder):
                archive.write(origin.root / name / file, inner + file)

    origin.put(f"{name}/{detector}", lambda path: save(path, Detector(side), side, outputs, batches=False))
    origin.put(f"{name}/{embedder}", save_recogniser)
    origin.put(f"packs/{name}.zip", pack)
