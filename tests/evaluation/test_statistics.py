"""The intervals obey the algebra of means, cover what they say, and correct for many comparisons."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from lookahead.evaluation.statistics import Interval, crossed_interval, holm

Array = NDArray[np.float64]


def crossed(seed: int, seeds: int = 3, people: int = 48) -> Array:
    return np.random.default_rng(seed).normal(size=(seeds, people))


def test_one_seed_gives_students_interval_over_people() -> None:
    values = crossed(0, seeds=1)
    found, theirs = crossed_interval(values), stats.ttest_1samp(values[0], 0.0)
    low, high = theirs.confidence_interval(0.95)
    assert (found.mean, found.low, found.high, found.p) == pytest.approx((values.mean(), low, high, theirs.pvalue))
    assert (found.people, found.seeds) == (48, 1)


@pytest.mark.parametrize("seeds", [1, 3])
def test_equal_numbers_have_no_width(seeds: int) -> None:
    assert crossed_interval(np.full((seeds, 10), 0.3)) == Interval(0.3, 0.3, 0.3, 10, seeds, 0.0)
    assert crossed_interval(np.zeros((seeds, 10))).p == 1.0


def test_a_seed_that_moves_everybody_widens_the_interval() -> None:
    values = crossed(3)
    moved = values + np.array([[-1.0], [0.0], [1.0]])
    plain, wide = crossed_interval(values), crossed_interval(moved)
    assert wide.mean == pytest.approx(plain.mean) and wide.high - wide.low > 5 * (plain.high - plain.low)


def test_the_p_value_is_five_per_cent_where_the_interval_ends_at_zero() -> None:
    values = crossed(4)
    found = crossed_interval(values)
    assert crossed_interval(values - found.low).p == pytest.approx(0.05)
    assert crossed_interval(values - found.low + 0.1).p < 0.05 < crossed_interval(values - found.low - 0.1).p
    assert crossed_interval(values + 1e6).p < 1e-9


def test_people_who_cannot_be_measured_are_left_out() -> None:
    values = crossed(5, people=6)
    values[1, 2] = math.nan
    assert crossed_interval(values) == crossed_interval(np.delete(values, 2, axis=1))
    assert math.isnan(crossed_interval(np.full((2, 3), math.nan)).mean)
    alone = crossed_interval(np.array([[0.5], [0.7]]))
    assert alone.mean == pytest.approx(0.6) and math.isnan(alone.low)


@pytest.mark.parametrize("of_seeds", [0.0, 0.02, 0.05, 0.3])
@pytest.mark.parametrize("people", [48, 100])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_coverage_is_at_least_93_per_cent(seeds: int, people: int, of_seeds: float) -> None:
    """By the standard deviation of seeds; the percentile bootstrap over seeds covers .5 to .9 here."""
    generator, repeats, covered = np.random.default_rng([seeds, people]), 600, 0
    for _ in range(repeats):
        values = of_seeds * generator.normal(size=(seeds, 1)) + 0.1 * generator.normal(size=(1, people))
        found = crossed_interval(values + 0.1 * generator.normal(size=(seeds, people)))
        covered += found.low <= 0 <= found.high
    assert covered / repeats >= 0.93


def test_coverage_of_skewed_people() -> None:
    draws = np.random.default_rng(11).exponential(size=(1_000, 1, 48))
    intervals = [crossed_interval(values) for values in draws]
    assert 0.90 <= np.mean([i.low <= 1.0 <= i.high for i in intervals]) <= 0.97


def test_holm_multiplies_by_those_that_are_left() -> None:
    found = holm(np.array([0.03, 0.01, math.nan, 0.04, 0.9]))
    np.testing.assert_allclose(found, [0.09, 0.04, math.nan, 0.09, 0.9])
    assert holm(np.array([0.6, 0.7])).tolist() == [1.0, 1.0]
