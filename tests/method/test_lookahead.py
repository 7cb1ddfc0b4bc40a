"""Eq. 4: the identity distance and its weight."""

import pytest
import torch

from lookahead.method.lookahead import identity_distance, lookahead_loss


def test_distance_is_one_minus_the_cosine():
    a = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    b = torch.tensor([[3.0, 0.0], [0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
    expected = torch.tensor([0.0, 2.0, 1 - 2**-0.5], dtype=torch.float64)
    torch.testing.assert_close(identity_distance(a, b), expected)


def test_distance_pulls_towards_the_reference():
    generator = torch.Generator().manual_seed(0)
    start, reference = torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
    start.requires_grad_()
    distance = identity_distance(start, reference)
    (gradient,) = torch.autograd.grad(distance.sum(), start)
    assert (identity_distance(start - 0.1 * gradient, reference) < distance).all()


@pytest.mark.parametrize(("weight_by_scale", "expected"), [(True, 0.2), (False, 0.5)])
def test_loss_is_the_mean_weighted_by_the_scale(weight_by_scale, expected):
    distance = torch.tensor([0.2, 0.8], dtype=torch.float64)
    assert lookahead_loss(distance, 0.4, weight_by_scale).item() == pytest.approx(expected)
