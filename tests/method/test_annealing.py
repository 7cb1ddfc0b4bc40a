"""Timestep densities against the figures of the official recipe."""

import pytest
import torch

from lookahead.method.annealing import cosine_density, draw_timesteps


@pytest.mark.parametrize(("strength", "mean", "late"), [(0.5, 601, 0.66), (0.2, 540, 0.56), (0.0, 499.5, 0.5)])
def test_densities_match_the_recipe(strength, mean, late):
    density = cosine_density(strength, 1000, 0, 999)
    assert density.dtype == torch.float64 and density.shape == (1000,)
    assert density.sum().item() == pytest.approx(1, abs=1e-12)
    assert (density * torch.arange(1000)).sum().item() == pytest.approx(mean, abs=1)
    assert density[500:].sum().item() == pytest.approx(late, abs=0.005)


def test_bounds_hold_nothing_outside():
    density = cosine_density(0.5, 1000, 200, 800)
    assert density.sum().item() == pytest.approx(1)
    assert density[:200].sum() == 0 and density[801:].sum() == 0
    assert density[200] > 0 and density[800] > density[200]


def test_draws_are_deterministic_and_follow_the_density():
    density = cosine_density(0.5, 1000, 100, 999)
    first, second = (draw_timesteps(density, 20_000, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)
    assert first.dtype == torch.int64 and first.min() >= 100 and first.max() <= 999
    expected = (density * torch.arange(1000)).sum().item()
    assert first.double().mean().item() == pytest.approx(expected, abs=8)


def test_one_timestep_is_a_density_too():
    density = cosine_density(1.0, 1000, 600, 600)
    assert torch.equal(draw_timesteps(density, 4, torch.Generator()), torch.full((4,), 600))
