"""A face detector as heavy as the official loop's, with random weights: what it finds is not used."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class Detector(nn.Module):
    """MTCNN's three networks on a pyramid: a small one everywhere, two on a fixed number of crops; random weights."""

    def __init__(self) -> None:
        """The published widths."""
        super().__init__()
        self.everywhere = _convolutions((3, 10, 16, 32), pool=1)
        self.refine = nn.Sequential(_convolutions((3, 28, 48, 64), pool=2), nn.Flatten(), nn.Linear(64 * 6 * 6, 128))
        self.last = nn.Sequential(
            _convolutions((3, 32, 64, 64, 128), pool=2), nn.Flatten(), nn.Linear(128 * 12 * 12, 256)
        )

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Scores of 16 crops a picture, on the CPU, where boxes are merged: (B * 16,)."""
        picture = pixels
        while min(picture.shape[-2:]) >= 12:
            self.everywhere(picture).amax().cpu()  # the boxes of a scale are read by the processor
            picture = nn.functional.interpolate(picture, scale_factor=0.709, mode="area")
        for network, count, side in ((self.refine, 64, 24), (self.last, 16, 48)):
            crops = nn.functional.interpolate(pixels, (side, side), mode="area").repeat_interleave(count, 0)
            scores: Tensor = network(crops).mean(1).cpu()
        return scores


def _convolutions(widths: tuple[int, ...], pool: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.PReLU(after)]
        if number < pool:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)
