"""How strongly training favours early, noisy timesteps, where layout and identity are decided.

A density says how often each timestep is drawn; its strength may change over the training, which is the annealing.
`DENSITIES` holds them by the names that `params.yaml` uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Generator, Tensor

StrengthSchedule = Literal["constant", "linear", "cosine"]


def uniform_density(_strength: float, timesteps: int) -> Tensor:
    """p(t) = 1 / T, (T,) float64, at any strength (§3)."""
    return torch.full((timesteps,), 1 / timesteps, dtype=torch.float64)


def cosine_density(strength: float, timesteps: int) -> Tensor:
    """p(t) ~ 1 - a cos(pi t / T), (T,) float64; a in [-1, 1], 0 is uniform (§4.3, official expression)."""
    t = torch.arange(timesteps, dtype=torch.float64)
    return _normalised(1 - strength * torch.cos(torch.pi * t / timesteps))


def power_density(strength: float, timesteps: int) -> Tensor:
    """p(t) ~ ((t + 1) / T)^a, (T,) float64; a >= 0, 0 is uniform (ours, in addition to §4.3)."""
    return _normalised((torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps) ** strength)


def logit_normal_density(strength: float, timesteps: int) -> Tensor:
    """p(u) ~ exp(-(logit(u) - a)^2 / 2) / (u (1 - u)) at u = (t + 1/2) / T, (T,) float64; a = 0 favours the middle.

    Timesteps as of Stable Diffusion 3 (arXiv 2403.03206, Eq. 19), with scale 1.
    """
    u = (torch.arange(timesteps, dtype=torch.float64) + 0.5) / timesteps
    return _normalised(torch.exp(-((torch.logit(u) - strength) ** 2) / 2) / (u * (1 - u)))


def _normalised(density: Tensor) -> Tensor:
    return density / density.sum()


DENSITIES: Mapping[str, Callable[[float, int], Tensor]] = {
    "uniform": uniform_density,
    "cosine": cosine_density,
    "power": power_density,
    "logit_normal": logit_normal_density,
}
"""p(t), (T,) float64, from a strength and the number T of timesteps."""


def between(density: Tensor, t_min: int, t_max: int) -> Tensor:
    """The density (T,), zero outside t_min <= t <= t_max, and elsewhere as before in proportion (§4.3)."""
    t = torch.arange(len(density))
    return _normalised(density * ((t >= t_min) & (t <= t_max)))


def among(density: Tensor, timesteps: Sequence[int]) -> Tensor:
    """The density (T,), zero but at these timesteps: those for which a few-step model was distilled (ours)."""
    kept = torch.zeros_like(density)
    kept[list(timesteps)] = density[list(timesteps)]
    return _normalised(kept)


def annealed(schedule: StrengthSchedule, first: float, last: float, progress: float) -> float:
    """The strength at a share of the training: from a_0 at 0 to a_1 at 1; `constant` stays at a_0 (§4.3)."""
    if schedule == "constant":
        return first
    way = torch.tensor(progress, dtype=torch.float64)
    if schedule == "cosine":
        way = (1 - torch.cos(torch.pi * way)) / 2
    return first + (last - first) * way.item()


def draw_timesteps(density: Tensor, count: int, generator: Generator) -> Tensor:
    """Independent timesteps (count,), int64, from probabilities (T,) on the generator's device (§4.3)."""
    return torch.multinomial(density, count, replacement=True, generator=generator)


def mixture(first: Tensor, second: Tensor) -> Tensor:
    """The density (T,) from which two losses can share their timesteps: half of each (ours)."""
    return (first + second) / 2


def importance(density: Tensor, drawn_from: Tensor, t: Tensor) -> Tensor:
    """p(t) / q(t), (B,): what turns a mean over t drawn from q into one over p; at most 2 for a mixture (ours)."""
    return (density[t] / drawn_from[t]).float()
