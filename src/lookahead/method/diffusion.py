"""The diffusion process: noising, clean latents from a prediction, and the noise loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

PredictionType = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class NoiseSchedule:
    """What a base was trained with: cumulative alphas (T,), index 0 the least noisy, and what its U-Net predicts."""

    alphas_cumprod: Tensor
    prediction_type: PredictionType


def signal_and_noise(schedule: NoiseSchedule, t: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
    """sqrt(a_t) and sqrt(b_t) = sqrt(1 - a_t) for t (B,), each (B, 1, 1, 1), in float32 or what is finer (§3).

    At t = 999 SDXL's sqrt(a_t) is 0.068, so half precision would be amplified 15-fold in clean latents.
    """
    assert t.shape == latents.shape[:1], f"one timestep a sample: t is {tuple(t.shape)}, latents {tuple(latents.shape)}"
    a = schedule.alphas_cumprod.to(t.device, torch.promote_types(latents.dtype, torch.float32))[t]
    a = a.view(-1, *[1] * (latents.ndim - 1))  # (B, 1, 1, 1)
    return a.sqrt(), (1 - a).sqrt()


def add_noise(schedule: NoiseSchedule, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """z_t = sqrt(a_t) z + sqrt(b_t) eps, for latents and noise (B, C, h, w) and t (B,) in [0, T) (§3)."""
    signal, spread = signal_and_noise(schedule, t, latents)
    return signal * latents + spread * noise


def clean_latents(schedule: NoiseSchedule, noisy: Tensor, prediction: Tensor, t: Tensor) -> Tensor:
    """The latents that a prediction implies, (B, C, h, w); from the base model this is the naive x0 (§3, §4.1).

    For epsilon (z_t - sqrt(b_t) eps) / sqrt(a_t); for v sqrt(a_t) z_t - sqrt(b_t) v.
    """
    signal, spread = signal_and_noise(schedule, t, noisy)
    prediction = prediction.to(signal.dtype)
    if schedule.prediction_type == "epsilon":
        return (noisy - spread * prediction) / signal
    return signal * noisy - spread * prediction


def noise_target(schedule: NoiseSchedule, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """What the U-Net should predict, (B, C, h, w): eps, or v = sqrt(a_t) eps - sqrt(b_t) z (§3)."""
    if schedule.prediction_type == "epsilon":
        return noise
    signal, spread = signal_and_noise(schedule, t, latents)
    return signal * noise - spread * latents


def noise_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each sample, (B,), from (B, C, h, w) tensors (§3)."""
    return (prediction.to(target.dtype) - target).square().flatten(1).mean(1)
