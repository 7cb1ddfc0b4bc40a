"""Pairs and the draws for a micro-batch, which depend on the seed and its index alone."""

from collections import Counter

import pytest
import torch

from lookahead.config import LoraScale
from lookahead.errors import InputError
from lookahead.features.store import FeatureTable
from lookahead.training.data import Pairs, balanced, density_at, draw_both, generator_for, scale_at
from tests.training.conftest import changed

#          person 0: 2 photos + 2; person 1: 3 photos; person 2: 1 photo + 1; person 3: a photo, another person between
IDENTITY = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 3, 0])
PHOTO = torch.tensor([1, 1, 0, 1, 1, 1, 1, 0, 1, 0], dtype=torch.bool)
STYLE = ["photo", "photo", "oil", "photo", "photo", "photo", "photo", "oil", "photo", "comic"]
# Of three people who have a reference, each has a third; person 0 shows three styles.
CHANCES = {0: 1 / 18, 1: 1 / 18, 2: 1 / 9, 9: 1 / 9, 3: 1 / 9, 4: 1 / 9, 5: 1 / 9, 7: 1 / 3}


def _table(identity: torch.Tensor, photo: torch.Tensor, style: list[str], own: torch.Tensor | bool = False):
    zeros, rows = torch.zeros_like(identity), torch.arange(len(identity))
    return FeatureTable(identity, zeros, photo, rows, zeros.bool() | own, style, style)


def _draw(seed: int, count: int = 6000) -> list[tuple[int, int]]:
    pairs = Pairs(_table(IDENTITY, PHOTO, STYLE), own_share=0.3)
    targets, references = pairs.draw(count, torch.Generator().manual_seed(seed))
    return list(zip(targets.tolist(), references.tolist(), strict=True))


def test_the_reference_is_another_plain_photo_of_the_same_person():
    counts = Counter(_draw(0))
    assert all(a != b and IDENTITY[a] == IDENTITY[b] and PHOTO[b] for a, b in counts)
    assert {reference for target, reference in counts if target == 4} == {3, 5}
    assert 0.8 < counts[4, 3] / counts[4, 5] < 1.25  # each equally often


def test_people_and_their_styles_are_balanced():
    pairs = Pairs(_table(IDENTITY, PHOTO, STYLE), own_share=0.3)
    chances = dict(zip(pairs.targets.tolist(), pairs.chances.tolist(), strict=True))
    assert chances == pytest.approx(CHANCES)  # 6 and 8 are the only photos of theirs
    assert Pairs(_table(IDENTITY, PHOTO, STYLE), 0.0, photos_only=True).targets.tolist() == [0, 1, 3, 4, 5]
    drawn = Counter(target for target, _ in _draw(0))
    assert drawn == pytest.approx({row: 6000 * chance for row, chance in CHANCES.items()}, rel=0.15)


def test_own_photos_have_their_share_however_many_there_are():
    own, identity = torch.tensor([True, True, False, False, False, False]), torch.tensor([2, 2, 0, 0, 1, 1])
    chances = balanced(own, identity, torch.zeros(6, dtype=torch.long), own_share=0.4)
    assert chances.tolist() == pytest.approx([0.2, 0.2, 0.15, 0.15, 0.15, 0.15])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_source_of_no_share_is_never_drawn(share):
    """And the other one, or the only one, has every draw."""
    own, zeros = IDENTITY == 1, torch.zeros(4, dtype=torch.long)
    targets, _ = Pairs(_table(IDENTITY, PHOTO, STYLE, own), own_share=share).draw(500, torch.Generator().manual_seed(0))
    assert own[targets].all() if share else not own[targets].any()
    alone = balanced(torch.full((4,), not share), zeros, zeros, own_share=share)
    assert alone.tolist() == pytest.approx([0.25] * 4)


def test_pairs_depend_on_the_generator_alone():
    assert _draw(1, 50) == _draw(1, 50) != _draw(2, 50)


def test_a_dataset_without_second_photos_is_refused():
    alone = _table(torch.tensor([0, 1]), torch.tensor([True, True]), ["photo"] * 2)
    with pytest.raises(InputError, match="no person has two photos"):
        Pairs(alone, own_share=0.0)


def test_generators_differ_by_purpose_seed_and_index():
    keys = [(purpose, seed, index) for purpose in ("a", "b") for seed in (0, 1) for index in (0, 1, 10)]
    numbers = {torch.rand((), generator=generator_for(*key)).item() for key in keys}
    assert len(numbers) == len(keys)


def test_scale_depends_on_the_step_alone():
    settings = LoraScale(low=0.1, high=1.0, probability_of_one=0.0, redraw_every=5)
    forwards = [scale_at(settings, 0, step) for step in range(40)]
    backwards = [scale_at(settings, 0, step) for step in reversed(range(40))][::-1]
    assert forwards == backwards and len(set(forwards)) == 8
    assert all(len(set(forwards[start : start + 5])) == 1 for start in range(0, 40, 5))
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


@pytest.mark.parametrize("share", [False, True])
def test_a_fast_child_of_few_timesteps_is_asked_at_these_alone(settings, share):
    previewed, shared = [249, 499, 749, 999], changed(settings, {"share_timesteps": share})
    noise, lookahead = draw_both(torch.Size((2000, 1, 2, 2)), shared, 1000, 0, previewed)
    asked = lookahead.t[lookahead.weight > 0]
    assert set(asked.tolist()) == set(previewed) and len(set(noise.t.tolist())) > 500
    assert (asked == 999).sum() > (asked == 249).sum(), "in the density's proportion"


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
