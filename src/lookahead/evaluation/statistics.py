"""Means over people and training seeds with 95 % intervals: pure functions of arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtrit

Array = NDArray[np.float64]
_LEVEL = 0.05  # of a 95 % interval, both tails
_SMALLEST = -300.0  # the logarithm of the smallest p value that is told apart from 0


@dataclass(frozen=True)
class Interval:
    """A mean, its 95 % interval, the numbers of people and training seeds, and the p value of the mean being 0.

    NaN where nothing could be measured, and without an interval where one person alone was. With one seed the interval
    is over people, of this training.
    """

    mean: float
    low: float
    high: float
    people: int
    seeds: int
    p: float


def crossed_interval(values: Array) -> Interval:
    """The mean of one number a training seed and person, (S, P), people being the same for every seed.

    Seeds a_s, people b_p and the rest e_sp are random and crossed, y_sp = m + a_s + b_p + e_sp. The mean's variance is
    (MS_a + MS_b - MS_e) / SP; MS_e is not subtracted, and MS_b is at least MS_e, so that no component is negative.
    Each mean square has the t quantile of its own degrees of freedom, h² = (t²_{S-1} MS_a + t²_{P-1} MS_b) / SP
    (Banerjee 1960): pooled ones (Satterthwaite 1946) cover 88 % only, where two seeds matter about as much as people.

    A person with a NaN is left out. With one seed, this is Student's interval over people.
    """
    kept = values[:, ~np.isnan(values).any(axis=0)]
    seeds, people = kept.shape
    if not people:
        return Interval(math.nan, math.nan, math.nan, 0, seeds, math.nan)
    first = kept[0, 0]
    offsets = kept - first  # so that equal numbers give exactly their own mean
    offset = float(offsets.mean())
    mean = float(first) + offset
    if people == 1:
        return Interval(mean, math.nan, math.nan, people, seeds, math.nan)
    terms = _terms(offsets)
    half = math.sqrt(_square(terms, _LEVEL))
    return Interval(mean, mean - half, mean + half, people, seeds, _p_value(terms, mean))


def _terms(values: Array) -> list[tuple[float, int]]:
    """The variances of the mean that come from people and from seeds, each with its degrees of freedom."""
    seeds, people = values.shape
    over_seeds, over_people = values.mean(axis=0), values.mean(axis=1)
    by_people = float(over_seeds.var(ddof=1)) / people
    if seeds == 1:
        return [(by_people, people - 1)]
    rest = values - over_seeds - over_people[:, None] + values.mean()
    noise = float(np.square(rest).sum()) / ((seeds - 1) * (people - 1)) / (seeds * people)
    return [(max(by_people, noise), people - 1), (float(over_people.var(ddof=1)) / seeds, seeds - 1)]


def _square(terms: list[tuple[float, int]], level: float) -> float:
    """The square of the half-width of the interval that leaves out `level`."""
    return sum(variance * float(stdtrit(freedom, level / 2)) ** 2 for variance, freedom in terms)


def _p_value(terms: list[tuple[float, int]], mean: float) -> float:
    """The level at which the interval would end at 0."""
    if not any(variance for variance, _ in terms):
        return float(mean == 0)

    def excess(logarithm: float) -> float:
        return _square(terms, math.exp(logarithm)) - mean**2

    if excess(_SMALLEST) <= 0:
        return 0.0
    return math.exp(brentq(excess, _SMALLEST, 0.0)) if mean else 1.0


def holm(p_values: Array) -> Array:
    """p values corrected for their number (Holm 1979), in their order; NaN stays and does not count."""
    corrected, known = np.full(len(p_values), np.nan), np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.maximum.accumulate(np.minimum(factors * p_values[order], 1.0))
    return corrected
