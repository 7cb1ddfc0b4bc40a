"""The lookahead preview: what the fast child says the picture will be."""

from __future__ import annotations

from torch import Tensor

from lookahead.method.diffusion import NoiseSchedule, clean_latents


def lcm_preview(schedule: NoiseSchedule, noisy: Tensor, child_prediction: Tensor, t: Tensor) -> Tensor:
    """z0_hat = (z_t - sqrt(b_t) eps_LCM(z_t, y, t, E(I_c))) / sqrt(a_t), or its equal in v, (B, C, h, w) (Eq. 3).

    The child's prediction comes from the U-Net with the LCM-LoRA at strength alpha. Without the LoRA this is naive x0.
    """
    return clean_latents(schedule, noisy, child_prediction, t)
