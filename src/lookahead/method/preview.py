"""The lookahead preview: what the fast child says the picture will be.

`PREVIEWS` holds the ways to step there by the names that `params.yaml` uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lookahead.method.diffusion import NoiseSchedule, add_noise, clean_latents

Predict = Callable[[Tensor, Tensor], Tensor]
"""The U-Net's prediction (B, C, h, w) for noisy latents (B, C, h, w) at t (B,)."""

SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0


def lcm_preview(schedule: NoiseSchedule, noisy: Tensor, child_prediction: Tensor, t: Tensor) -> Tensor:
    """z0_hat = (z_t - sqrt(b_t) eps_LCM(z_t, y, t, E(I_c))) / sqrt(a_t), or its equal in v, (B, C, h, w) (Eq. 3).

    The child's prediction comes from the U-Net with the LCM-LoRA at strength alpha. Without the LoRA this is naive x0.
    """
    return clean_latents(schedule, noisy, child_prediction, t)


def consistency_scalings(t: Tensor) -> tuple[Tensor, Tensor]:
    """c_skip = s^2 / ((10 t)^2 + s^2) and c_out = 10 t / sqrt((10 t)^2 + s^2) with s = 1/2, (B,) each (LCM, Eq. 9).

    They make a consistency function the identity at t = 0; from t = 1 on c_skip is below 0.003 and c_out above 0.998.
    """
    scaled = t.to(torch.float32) * TIMESTEP_SCALING
    square = scaled.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / square, scaled / square.sqrt()


def with_boundary(noisy: Tensor, preview: Tensor, t: Tensor) -> Tensor:
    """f(z_t, t) = c_skip(t) z_t + c_out(t) z0_hat, (B, C, h, w), as the official code has it (Eq. 3, LCM Eq. 9)."""
    c_skip, c_out = (c.view(-1, *[1] * (noisy.ndim - 1)) for c in consistency_scalings(t))
    return c_skip * noisy + c_out * preview


def consistency_stepping(
    schedule: NoiseSchedule,
    predict: Predict,
    noisy: Tensor,
    t: Tensor,
    noises: Sequence[Tensor] = (),
    gradient_steps: int = 1,
    boundary: bool = False,
) -> Tensor:
    """The preview after len(noises) + 1 steps of the child, with gradient through the last `gradient_steps` (Eq. 3).

    Step i of k stands at t (1 - i / k). Each step but the last is noised again to where the next one stands, as LCM
    samples. One step is the paper's; several are PuLID's (arXiv 2404.16022).

    Args:
        schedule: of the base.
        predict: the U-Net as fast child (LCM preview) or as it is (naive x0).
        noisy: (B, C, h, w) at t.
        t: (B,) int64.
        noises: (B, C, h, w) each, for the second step and the following ones.
        gradient_steps: at least 1.
        boundary: whether the consistency boundary condition is applied.
    """
    steps = len(noises) + 1
    clean, now = noisy, t
    for step in range(steps):
        with torch.set_grad_enabled(torch.is_grad_enabled() and steps - step <= gradient_steps):
            if step:
                now = t * (steps - step) // steps
                noisy = add_noise(schedule, clean, noises[step - 1], now)
            clean = lcm_preview(schedule, noisy, predict(noisy, now), now)
            clean = with_boundary(noisy, clean, now) if boundary else clean
    return clean


PREVIEWS: Mapping[str, Callable[..., Tensor]] = {"consistency": consistency_stepping}
"""Clean latents (B, C, h, w), with the arguments of `consistency_stepping`."""
