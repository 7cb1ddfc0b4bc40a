"""The intervals obey the algebra of means, cover what they should, and refuse what is not a number."""

from __future__ import annotations

import numpy as np
import pytest

from lookahead.evaluation.statistics import Interval, by_person, interval, measured_interval, paired_interval

RESAMPLES = 1_000


def _people(seed: int, count: int = 48) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count)


def test_mean_lies_inside() -> None:
    values = _people(0)
    result = interval(values, RESAMPLES, seed=1)
    assert result.mean == pytest.approx(values.mean())
    assert result.low < result.mean < result.high


def test_constant_has_no_width() -> None:
    assert interval(np.full(10, 0.3), RESAMPLES, seed=0) == Interval(0.3, 0.3, 0.3)


def test_shift_and_scale() -> None:
    values = _people(2)
    plain, moved = interval(values, RESAMPLES, seed=3), interval(4 * values + 7, RESAMPLES, seed=3)
    assert [moved.mean, moved.low, moved.high] == pytest.approx(
        [4 * v + 7 for v in (plain.mean, plain.low, plain.high)]
    )


def test_same_seed_same_interval_and_other_seed_not() -> None:
    values = _people(4)
    assert interval(values, RESAMPLES, seed=5) == interval(values, RESAMPLES, seed=5)
    assert interval(values, RESAMPLES, seed=5) != interval(values, RESAMPLES, seed=6)


def test_chunks_do_not_matter_to_the_width() -> None:
    values = _people(7)
    few, many = interval(values, 1_000, seed=8), interval(values, 5_500, seed=8)
    assert few.high - few.low == pytest.approx(many.high - many.low, rel=0.1)


def test_width_is_close_to_the_normal_one() -> None:
    values = _people(9, count=200)
    result = interval(values, 4_000, seed=10)
    assert result.high - result.low == pytest.approx(2 * 1.96 * values.std() / 200**0.5, rel=0.08)


def test_coverage_of_skewed_values() -> None:
    """In 400 repeats with 48 people of an exponential distribution, the true mean lies inside 91 to 97 times in 100."""
    draws = np.random.default_rng(11).exponential(size=(400, 48))
    intervals = [interval(values, 500, seed=i) for i, values in enumerate(draws)]
    covered = np.mean([i.low <= 1.0 <= i.high for i in intervals])
    assert 0.90 <= covered <= 0.97


def test_coverage_is_what_it_says() -> None:
    """In 2,000 samples of 48 people from a normal distribution the truth lies inside 95 in 100 times (± 2)."""
    draws = np.random.default_rng(21).normal(0.5, 0.2, size=(2_000, 48))
    intervals = [interval(values, RESAMPLES, seed=i).measured() for i, values in enumerate(draws)]
    assert np.mean([low <= 0.5 <= high for _, low, high in intervals]) == pytest.approx(0.95, abs=0.02)


def test_pairing_matters() -> None:
    """A small gain that everybody has is certain when paired, although people differ far more than that."""
    before = 10 * _people(12)
    after = before + 0.1 + 0.01 * _people(13)
    paired = paired_interval(after, before, RESAMPLES, seed=14)
    assert 0.09 < paired.low < paired.high < 0.11
    shuffled = paired_interval(after, before[::-1].copy(), RESAMPLES, seed=14)
    assert shuffled.low < 0 < shuffled.high
    assert shuffled.mean == pytest.approx(paired.mean)


def test_paired_with_itself_is_zero() -> None:
    assert paired_interval(_people(15), _people(15), RESAMPLES, seed=0) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        interval(np.array([0.1, bad]), RESAMPLES, seed=0)


@pytest.mark.parametrize("bad", [np.empty(0), np.zeros((2, 2))])
def test_wrong_shape_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="shape"):
        interval(bad, RESAMPLES, seed=0)


def test_different_people_are_refused() -> None:
    with pytest.raises(ValueError, match="same people"):
        paired_interval(np.zeros(3), np.zeros(4), RESAMPLES, seed=0)


def test_by_person_is_a_mean_of_measured_pictures() -> None:
    people = np.array([2, 0, 2, 0, 1])
    means = by_person(people, np.array([1.0, 0.5, 2.0, np.nan, np.nan]))
    np.testing.assert_equal(means, [0.5, np.nan, 1.5])


def test_measured_interval_leaves_people_out() -> None:
    values = np.array([0.2, np.nan, 0.4])
    assert measured_interval(values, RESAMPLES, seed=0) == interval(values[[0, 2]], RESAMPLES, seed=0)
    assert measured_interval(np.array([np.nan]), RESAMPLES, seed=0) == Interval(None, None, None)
