"""The draws for a micro-batch depend on the seed and its index alone."""

import torch

from lookahead.config import LoraScale
from lookahead.training.data import density_at, draw_both, generator_for, scale_at
from tests.training.conftest import changed


def test_generators_differ_by_purpose_seed_and_index():
    keys = [(purpose, seed, index) for purpose in ("a", "b") for seed in (0, 1) for index in (0, 1, 10)]
    numbers = {torch.rand((), generator=generator_for(*key)).item() for key in keys}
    assert len(numbers) == len(keys)


def test_scale_depends_on_the_step_alone():
    settings = LoraScale(low=0.1, high=1.0, probability_of_one=0.0, redraw_every=5)
    forwards = [scale_at(settings, 0, step) for step in range(40)]
    backwards = [scale_at(settings, 0, step) for step in reversed(range(40))][::-1]
    assert forwards == backwards
    for start in range(0, 40, 5):
        assert len(set(forwards[start : start + 5])) == 1
    assert len(set(forwards)) == 8
    assert all(0.1 <= scale <= 1 for scale in forwards)
    assert forwards != [scale_at(settings, 1, step) for step in range(40)]


def test_no_draw_touches_the_global_generator(settings):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    draw_both(torch.Size((2, 4, 8, 8)), settings, 1000, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_noise_is_standard_and_timesteps_are_those_of_the_density(settings):
    bounded = changed(settings, {"lookahead": {"density": {"timestep_min": 500, "timestep_max": 600}}})
    draws = draw_both(torch.Size((500, 4, 4, 4)), bounded, 1000, 0)
    assert draws.lookahead.t.min() >= 500 and draws.lookahead.t.max() <= 600
    assert draws.noise.t.min() < 100 and draws.noise.t.max() > 900
    for draw in (draws.noise, draws.lookahead):
        assert abs(draw.noise.mean().item()) < 0.02 and abs(draw.noise.std().item() - 1) < 0.02
        assert torch.equal(draw.weight, torch.ones(500))
    assert not torch.equal(draws.noise.noise, draws.lookahead.noise)


def test_the_focus_is_annealed_over_the_training(settings):
    density = settings.noise_density.model_copy(update={"annealing": "linear", "strength": 1.0, "final_strength": 0.0})
    first, middle, last = (density_at(density, 1000, progress) for progress in (0.0, 0.5, 1.0))
    torch.testing.assert_close(last, torch.full((1000,), 1e-3, dtype=torch.float64))
    assert first[0] < middle[0] < last[0] and first[-1] > middle[-1] > last[-1]


def test_shared_timesteps_differ_in_their_weights_alone(settings):
    focused = {"lookahead": {"density": {"timestep_min": 500}}, "share_timesteps": True}
    draws = draw_both(torch.Size((4000, 1, 2, 2)), changed(settings, focused), 1000, 0)
    assert torch.equal(draws.noise.t, draws.lookahead.t) and torch.equal(draws.noise.noise, draws.lookahead.noise)
    early = draws.noise.t < 500
    assert (draws.lookahead.weight[early] == 0).all() and (draws.noise.weight[early] == 2).all()
    for draw in (draws.noise, draws.lookahead):
        assert draw.weight.max() <= 2 and abs(draw.weight.mean().item() - 1) < 0.05
