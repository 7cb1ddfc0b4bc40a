"""Alignment of faces and the recogniser of an insightface pack in torch, so that Eq. 4 has a gradient."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lookahead.errors import InputError

SIDE = 112  # pixels, the input of ArcFace's recognisers
# Where ArcFace puts the eyes, the nose and the corners of the mouth, in pixels (insightface.utils.face_align).
TEMPLATE = (
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
)


def similarity(source: Tensor, destination: Tensor) -> tuple[Tensor, Tensor]:
    """The turn-and-scale a and shift b, complex (B, 1), with destination ~ a source + b in least squares.

    Points are (B, P, 2) or (1, P, 2). In two dimensions Umeyama's method, which insightface uses, is this linear fit
    over complex numbers.
    """
    z, w = torch.view_as_complex(source.contiguous()), torch.view_as_complex(destination.contiguous())
    z_mean, w_mean = z.mean(1, keepdim=True), w.mean(1, keepdim=True)
    z, w = z - z_mean, w - w_mean
    a = (z.conj() * w).sum(1, keepdim=True) / z.abs().square().sum(1, keepdim=True)
    return a, w_mean - a * z_mean


def _sampling_grid(landmarks: Tensor) -> Tensor:
    """Where each pixel of the crop lies in the picture, (B, SIDE, SIDE, 2) in pixels."""
    a, b = similarity(landmarks, landmarks.new_tensor(TEMPLATE)[None])
    axis = torch.arange(SIDE, device=landmarks.device, dtype=landmarks.dtype)
    crop = torch.complex(*reversed(torch.meshgrid(axis, axis, indexing="ij")))  # x + iy
    return torch.view_as_real((crop[None] - b[..., None]) / a[..., None])


def align(pixels: Tensor, landmarks: Tensor) -> Tensor:
    """Crops (B, 3, SIDE, SIDE) of pixels (B, 3, H, W) in [-1, 1], by landmarks (B, 5, 2) in pixels, black outside.

    Equal to `insightface.utils.face_align.norm_crop` up to its rounding, but batched and differentiable in `pixels`.
    """
    height, width = pixels.shape[-2:]
    last = landmarks.new_tensor([width - 1, height - 1])
    grid = _sampling_grid(landmarks.float()) / last * 2 - 1  # integer coordinates are the centres of pixels
    crops = torch.nn.functional.grid_sample(pixels.float() + 1, grid, align_corners=True)
    return crops - 1  # the border that grid_sample fills with 0 is black, as insightface's


class Recogniser(nn.Module):
    """Unit embeddings (B, E) from aligned crops (B, 3, 112, 112), RGB in [-1, 1]; frozen (Eq. 4)."""

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        """Wrap a network that wants (grey value - mean) / std for grey values in [0, 255]."""
        super().__init__()
        self.network = network.eval().requires_grad_(False)  # in training mode BatchNorm would use the batch
        self.factor, self.shift = 127.5 / std, (127.5 - mean) / std

    def forward(self, crops: Tensor) -> Tensor:
        """Embed the crops."""
        return nn.functional.normalize(self.network(crops.float() * self.factor + self.shift), dim=1)


def open_recogniser(path: Path) -> Recogniser:
    """Open a pack's recogniser, an ONNX file with one image input and one output (Eq. 4)."""
    import onnx
    import onnx2torch
    from insightface.model_zoo.arcface_onnx import ArcFaceONNX

    try:
        normal = ArcFaceONNX(str(path))  # insightface guesses the normalisation from the graph: take its answer
        network = onnx2torch.convert(onnx.load(path))  # of a path it would write a temporary file
    except Exception as error:  # onnx, onnxruntime and onnx2torch share no base class
        raise InputError(f"the recogniser {path} cannot be opened: {error}; fetch the face pack again") from error
    return Recogniser(network, normal.input_mean, normal.input_std)
