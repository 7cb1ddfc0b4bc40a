"""Lookahead guidance: what the steered prediction implies."""

from __future__ import annotations

import pytest
import torch

from lookahead.method.diffusion import NoiseSchedule, PredictionType, clean_latents
from lookahead.method.steering import direction, steered

ALPHAS = torch.linspace(0.99999, 0.005, 1000)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_the_steered_prediction_shifts_the_clean_latents_by_the_strength(kind: PredictionType) -> None:
    schedule = NoiseSchedule(ALPHAS, kind)
    draw = torch.Generator().manual_seed(0)
    noisy, prediction, gradient = (torch.randn(3, 4, 8, 8, generator=draw, dtype=torch.float64) for _ in range(3))
    t = torch.tensor([20, 500, 999])
    after = clean_latents(schedule, noisy, steered(schedule, prediction, 1e-4 * gradient, t, 0.3), t)
    shift = after - clean_latents(schedule, noisy, prediction, t)
    torch.testing.assert_close(shift, -0.3 * direction(gradient))
    torch.testing.assert_close(shift.square().flatten(1).mean(1).sqrt(), torch.full((3,), 0.3, dtype=torch.float64))


def test_no_gradient_steers_nothing() -> None:
    schedule = NoiseSchedule(ALPHAS, "epsilon")
    prediction = torch.ones(2, 4, 8, 8)
    gradient = torch.zeros(2, 4, 8, 8)
    assert torch.equal(steered(schedule, prediction, gradient, torch.tensor([1, 999]), 1.0), prediction)
