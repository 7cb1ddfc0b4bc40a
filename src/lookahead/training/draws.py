"""The random draws of a micro-batch: they depend on the seed and its index alone, so resuming needs no state."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from lookahead.config import Density, Lookahead, LoraScale
from lookahead.method.annealing import cosine_density, draw_timesteps
from lookahead.method.lora_scale import draw_scale


@dataclass(frozen=True)
class NoiseDraw:
    """Timesteps (B,), int64, and the noise (B, C, h, w) of one pass."""

    t: Tensor
    noise: Tensor


def generator_for(purpose: str, seed: int, index: int) -> Generator:
    """A generator of its own for each purpose: what one pass draws cannot shift what another does."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def draw_noise(latents: Tensor, density: Tensor, generator: Generator) -> NoiseDraw:
    """Timesteps by a density (T,), and Gaussian noise like the latents (§3)."""
    t = draw_timesteps(density, len(latents), generator)
    noise = torch.randn(latents.shape, generator=generator)
    return NoiseDraw(t.to(latents.device), noise.to(latents.device))


def noise_pass_density(density: Density, timesteps: int) -> Tensor:
    """The noise pass sees every timestep (§3)."""
    return cosine_density(density.strength, timesteps, 0, timesteps - 1)


def lookahead_density(lookahead: Lookahead, timesteps: int) -> Tensor:
    """The lookahead pass sees the timesteps between its bounds (§4.3)."""
    return cosine_density(lookahead.density.strength, timesteps, lookahead.timestep_min, lookahead.timestep_max)


def scale_at(settings: LoraScale, seed: int, index: int) -> float:
    """alpha_LoRA of a micro-batch; `redraw_every` neighbours share one (§4.2)."""
    generator = generator_for("lora_scale", seed, index // settings.redraw_every)
    return draw_scale(settings.low, settings.high, settings.probability_of_one, generator)


def draw_kept(count: int, drop: float, generator: Generator) -> Tensor:
    """Which samples keep their image tokens, bool (count, 1, 1); the rest learn to do without (as IP-Adapter)."""
    return torch.rand(count, 1, 1, generator=generator) >= drop
