"""Faces aligned as recognisers expect them, with gradients to the picture."""

from __future__ import annotations

import torch
from torch import Tensor

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
