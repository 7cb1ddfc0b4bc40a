"""The random draws of a micro-batch: they depend on the seed and its index alone, so resuming needs no state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from lookahead.config import Density, LoraScale, Train
from lookahead.method import annealing
from lookahead.method.annealing import annealed, between, draw_timesteps, importance, mixture
from lookahead.method.lora_scale import draw_scale
from lookahead.world import to_device


@dataclass(frozen=True)
class NoiseDraw:
    """Timesteps (B,), int64, the noise (B, C, h, w) of one pass, and what each sample's loss counts, (B,)."""

    t: Tensor
    noise: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Draws:
    """The draws of both losses of a micro-batch; with shared timesteps they differ in their weights alone."""

    noise: NoiseDraw
    lookahead: NoiseDraw


def generator_for(purpose: str, seed: int, index: int) -> Generator:
    """A generator of its own for each purpose: what one pass draws cannot shift what another does."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def density_at(density: Density, timesteps: int, progress: float) -> Tensor:
    """The density (timesteps,) after a share of the training, its strength annealed (§4.3)."""
    strength = annealed(density.annealing, density.strength, density.final_strength, progress)
    by_name: Callable[[float, int], Tensor] = getattr(annealing, f"{density.kind}_density")
    return between(by_name(strength, timesteps), density.timestep_min, density.timestep_max)


def draw_noise(shape: torch.Size, density: Tensor, generator: Generator) -> NoiseDraw:
    """Timesteps by a density (T,), and Gaussian noise (B, C, h, w), on the CPU (§3)."""
    t = draw_timesteps(density, shape[0], generator)
    return NoiseDraw(t, torch.randn(shape, generator=generator), torch.ones(shape[0]))


def _sent(draw: NoiseDraw) -> NoiseDraw:
    return NoiseDraw(to_device(draw.t), to_device(draw.noise), to_device(draw.weight))


def draw_both(shape: torch.Size, settings: Train, timesteps: int, progress: float, index: int) -> Draws:
    """The draws of micro-batch `index`, whose latents have a shape (B, C, h, w), on the device.

    With `share_timesteps` both losses see the same t, from the mixture of their densities, and the same noise; the
    weights keep each loss's mean what it would be with draws of its own (tested to be unbiased).
    """
    of_noise = density_at(settings.noise_density, timesteps, progress)
    of_lookahead = density_at(settings.lookahead.density, timesteps, progress)
    if not settings.share_timesteps:
        return Draws(
            _sent(draw_noise(shape, of_noise, generator_for("noise_pass", settings.seed, index))),
            _sent(draw_noise(shape, of_lookahead, generator_for("lookahead_pass", settings.seed, index))),
        )
    both = mixture(of_noise, of_lookahead)
    drawn = draw_noise(shape, both, generator_for("shared_pass", settings.seed, index))
    draw = _sent(drawn)
    weights = (to_device(importance(density, both, drawn.t)) for density in (of_noise, of_lookahead))
    return Draws(*(NoiseDraw(draw.t, draw.noise, weight) for weight in weights))


def scale_at(settings: LoraScale, seed: int, index: int) -> float:
    """alpha_LoRA of a micro-batch; `redraw_every` neighbours share one (§4.2)."""
    generator = generator_for("lora_scale", seed, index // settings.redraw_every)
    return draw_scale(settings.low, settings.high, settings.probability_of_one, generator)


def draw_kept(count: int, drop: float, generator: Generator) -> Tensor:
    """Which samples keep a condition, bool (count,); the rest learn to do without (as IP-Adapter)."""
    return torch.rand(count, generator=generator) >= drop
