"""Guidance while sampling: how noise predictions are combined, and how the identity of the preview steers them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lookahead.method.diffusion import NoiseSchedule, signal_and_noise


def guided(unconditional: Tensor, conditional: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """e_0 + sum_i w_i (e_i - e_0), for predictions of equal shape (§3, official code).

    One condition is classifier-free guidance. The official release has three: text and image tokens (3), both with keys
    and values (2), keys and values alone (2), which then come from a reference without text, too.
    """
    prediction = unconditional
    for weight, one in zip(weights, conditional, strict=True):
        prediction = prediction + weight * (one - unconditional)
    return prediction


def direction(gradient: Tensor) -> Tensor:
    """g / sqrt(mean(g^2)), each sample's gradient (B, C, h, w) at a root mean square of 1; 0 stays 0 (ours).

    A distance's gradient differs by orders of magnitude between timesteps; its direction does not.
    """
    size = gradient.square().flatten(1).mean(1).sqrt().clamp_min(1e-12)
    return gradient / size.view(-1, *[1] * (gradient.ndim - 1))


def steered(schedule: NoiseSchedule, prediction: Tensor, gradient: Tensor, t: Tensor, strength: float) -> Tensor:
    """The prediction whose clean latents are z0_hat - s g / |g|, for the gradient g of D(preview) by z_t (§3, ours).

    For epsilon eps + s sqrt(a_t) / sqrt(b_t) g / |g|; for v it is v + s g / (sqrt(b_t) |g|). Any sampler can go on from
    it, and a strength means the same at every t: a share of the latents' standard deviation, which is about 1.

    Args:
        schedule: of the base.
        prediction: (B, C, h, w), after guidance.
        gradient: (B, C, h, w) of the identity distance by the noisy latents.
        t: (B,) int64.
        strength: s, at least 0.
    """
    signal, spread = signal_and_noise(schedule, t, gradient)
    factor = signal / spread if schedule.prediction_type == "epsilon" else 1 / spread
    return prediction + (strength * factor * direction(gradient)).to(prediction.dtype)
