"""Eq. 4: the identity distance and its weight; and what a steered prediction implies."""

import pytest
import torch

from lookahead.method.diffusion import NoiseSchedule, clean_latents
from lookahead.method.guidance import direction, steered
from lookahead.method.lookahead import identity_distance, lookahead_loss

ALPHAS = torch.linspace(0.99999, 0.005, 1000)


def test_distance_is_one_minus_the_cosine():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([[3.0, 0.0], [0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([0.0, 2.0, 1 - 2**-0.5], dtype=torch.float64)
    torch.testing.assert_close(identity_distance(a, b), expected)


@pytest.mark.parametrize(("weight_by_scale", "expected"), [(True, 0.2), (False, 0.5)])
def test_loss_is_the_mean_weighted_by_the_scale(weight_by_scale, expected):
    distance = torch.tensor([0.2, 0.8], dtype=torch.float64)
    assert lookahead_loss(distance, 0.4, weight_by_scale).item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_steered_prediction_shifts_the_clean_latents_by_the_strength(kind):
    schedule = NoiseSchedule(ALPHAS, kind)
    draw = torch.Generator().manual_seed(0)
    noisy, prediction, gradient = (torch.randn(3, 4, 8, 8, generator=draw, dtype=torch.float64) for _ in range(3))
    t = torch.tensor([20, 500, 999])
    after = clean_latents(schedule, noisy, steered(schedule, prediction, 1e-4 * gradient, t, 0.3), t)
    shift = after - clean_latents(schedule, noisy, prediction, t)
    torch.testing.assert_close(shift, -0.3 * direction(gradient))
    torch.testing.assert_close(shift.square().flatten(1).mean(1).sqrt(), torch.full((3,), 0.3, dtype=torch.float64))


def test_no_gradient_steers_nothing():
    schedule, prediction = NoiseSchedule(ALPHAS, "epsilon"), torch.ones(2, 4, 8, 8)
    assert torch.equal(steered(schedule, prediction, 0 * prediction, torch.tensor([1, 999]), 1.0), prediction)
