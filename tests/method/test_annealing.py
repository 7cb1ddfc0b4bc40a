"""Densities over timesteps, their annealing, and sharing draws between two losses."""

import math

import pytest
import torch

from lookahead.method.annealing import (
    annealed,
    between,
    cosine_density,
    draw_timesteps,
    importance,
    logit_normal_density,
    mixture,
    power_density,
    uniform_density,
)

DENSITIES = [uniform_density(0.7, 1000), cosine_density(0.5, 1000), cosine_density(-1.0, 1000)]
DENSITIES += [power_density(1.5, 1000), logit_normal_density(0.8, 1000)]


@pytest.mark.parametrize("whole", DENSITIES)
@pytest.mark.parametrize(("t_min", "t_max"), [(0, 999), (200, 800), (600, 600)])
def test_a_density_sums_to_one_within_its_bounds(whole, t_min, t_max):
    density = between(whole, t_min, t_max)
    assert density.dtype == torch.float64 and density.shape == (1000,)
    assert density.sum().item() == pytest.approx(1, abs=1e-12)
    inside = torch.zeros(1000, dtype=torch.bool)
    inside[t_min : t_max + 1] = True
    assert (density[~inside] == 0).all() and (density >= 0).all()


@pytest.mark.parametrize("density", [uniform_density(0.7, 1000), cosine_density(0.0, 1000), power_density(0.0, 1000)])
def test_strength_0_is_uniform(density):
    torch.testing.assert_close(density, torch.full((1000,), 1e-3, dtype=torch.float64), rtol=1e-12, atol=0)


@pytest.mark.parametrize(("strength", "mean", "late"), [(0.5, 601, 0.66), (0.2, 540, 0.56)])
def test_cosine_equals_the_official_expression(strength, mean, late):
    """p = 1 - a cos(pi t / 1000), divided by its sum, as the official training code builds it; golden: mean and
    P(t >= 500)."""
    official = [1 - strength * math.cos(math.pi * t / 1000) for t in range(1000)]
    expected = torch.tensor([p / sum(official) for p in official], dtype=torch.float64)
    density = cosine_density(strength, 1000)
    torch.testing.assert_close(density, expected, rtol=1e-10, atol=0)
    assert (density * torch.arange(1000)).sum().item() == pytest.approx(mean, abs=1)
    assert density[500:].sum().item() == pytest.approx(late, abs=0.005)


def test_logit_normal_is_that_of_its_draws():
    """u = sigmoid(a + n), n standard normal: the histogram of a million draws in ten bins."""
    density = logit_normal_density(0.7, 1000).view(10, 100).sum(1)
    u = torch.sigmoid(0.7 + torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)))
    counts = torch.histc(u, 10, 0, 1).double() / 1_000_000
    torch.testing.assert_close(density, counts, atol=2e-3, rtol=0)


@pytest.mark.parametrize("density", [cosine_density, power_density, logit_normal_density])
def test_strength_moves_timesteps_towards_noise(density):
    t = torch.arange(1000, dtype=torch.float64)
    means = [(density(strength, 1000) * t).sum().item() for strength in (0.0, 0.5, 1.0)]
    assert means[0] < means[1] < means[2]


def test_annealing_goes_from_first_to_last():
    for schedule in ("linear", "cosine"):
        assert [annealed(schedule, 0.8, 0.2, at) for at in (0.0, 0.5, 1.0)] == pytest.approx([0.8, 0.5, 0.2])
    assert annealed("cosine", 0.0, 1.0, 0.25) == pytest.approx((1 - math.cos(math.pi / 4)) / 2)
    assert annealed("constant", 0.8, 0.2, 1.0) == 0.8


def test_draws_follow_the_density():
    density = cosine_density(0.5, 1000)
    t = draw_timesteps(density, 100_000, torch.Generator().manual_seed(0))
    assert t.dtype == torch.int64 and t.min() >= 0 and t.max() < 1000
    assert (t >= 500).double().mean().item() == pytest.approx(density[500:].sum().item(), abs=0.01)


def test_shared_draws_are_unbiased():
    """E_q[p(t) / q(t) f(t)] = E_p[f(t)] exactly, as a sum over t, for both densities; no weight is above 2."""
    first, second = cosine_density(0.5, 1000), between(power_density(3.0, 1000), 300, 999)
    drawn_from, t = mixture(first, second), torch.arange(1000)
    f = torch.sin(t.double() / 90) + t / 500
    for density in (first, second):
        weight = importance(density, drawn_from, t).double()
        assert weight.max() <= 2
        assert (drawn_from * weight * f).sum().item() == pytest.approx((density * f).sum().item(), rel=1e-6)
