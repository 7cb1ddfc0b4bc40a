"""What is drawn for a micro-batch depends on the seed and its index alone."""

import torch

from lookahead.config import Density, LoraScale
from lookahead.training.draws import (
    draw_kept,
    draw_noise,
    generator_for,
    lookahead_density,
    noise_pass_density,
    scale_at,
)


def test_generators_differ_by_purpose_seed_and_index():
    keys = [(purpose, seed, index) for purpose in ("a", "b") for seed in (0, 1) for index in (0, 1, 10)]
    numbers = {torch.rand((), generator=generator_for(*key)).item() for key in keys}
    assert len(numbers) == len(keys)


def test_scale_depends_on_the_index_alone():
    settings = LoraScale(low=0.1, high=1.0, probability_of_one=0.0, redraw_every=5)
    forwards = [scale_at(settings, 0, index) for index in range(40)]
    backwards = [scale_at(settings, 0, index) for index in reversed(range(40))][::-1]
    assert forwards == backwards
    for start in range(0, 40, 5):
        assert len(set(forwards[start : start + 5])) == 1
    assert len(set(forwards)) == 8
    assert all(0.1 <= scale <= 1 for scale in forwards)
    assert forwards != [scale_at(settings, 1, index) for index in range(40)]


def test_no_draw_touches_the_global_generator():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    density = noise_pass_density(Density(strength=0.5), 1000)
    draw_noise(torch.zeros(2, 4, 8, 8), density, generator_for("noise_pass", 0, 0))
    draw_kept(4, 0.5, generator_for("noise_pass", 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_noise_is_standard_and_timesteps_are_those_of_the_density(settings):
    bounded = settings.lookahead.model_copy(update={"timestep_min": 500, "timestep_max": 600})
    draw = draw_noise(torch.zeros(500, 4, 4, 4), lookahead_density(bounded, 1000), generator_for("x", 0, 0))
    assert draw.t.min() >= 500 and draw.t.max() <= 600
    assert abs(draw.noise.mean().item()) < 0.02 and abs(draw.noise.std().item() - 1) < 0.02


def test_drop_is_a_share_of_the_samples():
    kept = draw_kept(5000, 0.1, generator_for("x", 0, 0))
    assert kept.shape == (5000, 1, 1) and kept.dtype == torch.bool
    assert abs(kept.float().mean().item() - 0.9) < 0.02
    assert draw_kept(100, 0.0, generator_for("x", 0, 0)).all()
    assert not draw_kept(100, 1.0, generator_for("x", 0, 0)).any()
