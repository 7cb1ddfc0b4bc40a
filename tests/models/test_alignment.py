"""Alignment against insightface's own, and its gradient."""

import cv2
import numpy as np
import pytest
import torch
from insightface.utils import face_align

from lookahead.models.recogniser import SIDE, TEMPLATE, align


def smooth_picture(height: int, width: int) -> np.ndarray:
    """A smooth random picture, so that interpolation's rounding stays small."""
    noise = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    return (cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 1) * 255).astype(np.uint8)


def moved_template(scale: float, angle: float, shift: tuple[float, float]) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    wobble = np.random.default_rng(1).normal(scale=scale, size=(5, 2))
    return (scale * np.array(TEMPLATE) @ turn.T + shift + wobble).astype(np.float32)


POSES = [
    (0.35, 0.0, (14.0, 10.0)),  # a face in the middle of 64 pixels
    (0.3, 0.4, (25.0, 5.0)),  # turned
    (0.6, -0.2, (-8.0, 3.0)),  # reaches over the border
]


@pytest.mark.parametrize("pose", POSES)
@pytest.mark.parametrize("size", [(64, 64), (80, 64)])
def test_crop_equals_insightface(pose, size):
    picture, landmarks = smooth_picture(*size), moved_template(*pose)
    theirs = face_align.norm_crop(picture, landmarks).astype(np.float32)
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1
    ours = align(pixels, torch.from_numpy(landmarks)[None])[0].permute(1, 2, 0).numpy() * 127.5 + 127.5
    # insightface puts samples on a grid of 1/32 pixel and rounds to whole grey values
    assert np.abs(ours - theirs).mean() < 0.6
    assert np.quantile(np.abs(ours - theirs), 0.99) < 4


def test_batch_equals_single_pictures_and_passes_gradients():
    generator = torch.Generator().manual_seed(0)
    pixels = (torch.rand(3, 3, 64, 64, generator=generator) * 2 - 1).requires_grad_()
    landmarks = torch.stack([torch.from_numpy(moved_template(*pose)) for pose in POSES])
    crops = align(pixels, landmarks)
    assert crops.shape == (3, 3, SIDE, SIDE)
    assert crops.min() >= -1.0001 and crops.max() <= 1.0001
    for i in range(3):
        torch.testing.assert_close(crops[i : i + 1], align(pixels[i : i + 1], landmarks[i : i + 1]), rtol=0, atol=1e-4)
    crops.mean().backward()
    assert pixels.grad is not None and (pixels.grad.abs().sum((1, 2, 3)) > 0).all()


def test_outside_is_black():
    landmarks = torch.from_numpy(moved_template(0.35, 0.0, (200.0, 200.0)))[None]
    assert torch.equal(align(torch.ones(1, 3, 64, 64), landmarks), -torch.ones(1, 3, SIDE, SIDE))
