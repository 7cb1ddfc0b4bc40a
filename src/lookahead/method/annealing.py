"""How strongly training favours early, noisy timesteps, where layout and identity are decided."""

from __future__ import annotations

import torch
from torch import Generator, Tensor


def cosine_density(strength: float, timesteps: int, t_min: int, t_max: int) -> Tensor:
    """p(t) ~ 1 - strength cos(pi t / T) for t_min <= t <= t_max, else 0: probabilities (T,) in float64 (§4.3)."""
    t = torch.arange(timesteps, dtype=torch.float64)
    density = (1 - strength * torch.cos(torch.pi * t / timesteps)) * ((t >= t_min) & (t <= t_max))
    return density / density.sum()


def draw_timesteps(density: Tensor, count: int, generator: Generator) -> Tensor:
    """Independent timesteps (count,), int64, from probabilities (T,) on the generator's device (§4.3)."""
    return torch.multinomial(density, count, replacement=True, generator=generator)
