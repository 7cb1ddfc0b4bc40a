"""Means over people and their 95 % intervals (percentile bootstrap, Efron 1979): pure functions of arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_CHUNK = 1_000  # resamples held in memory at once
_TAILS = (2.5, 97.5)  # per cent: a 95 % interval


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval; all three are None where nobody could be measured."""

    mean: float | None
    low: float | None
    high: float | None

    def measured(self) -> tuple[float, float, float]:
        """Mean, low and high of an interval that is not empty."""
        assert self.mean is not None and self.low is not None and self.high is not None
        return self.mean, self.low, self.high

    def row(self) -> dict[str, float | None]:
        """The interval as `metrics.json` holds it (design, section 5)."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def by_person(people: NDArray[np.int64], values: Array) -> Array:
    """The mean of each person's measured pictures, people in ascending order.

    Args:
        people: (N,) which person each picture shows.
        values: (N,) one number a picture; NaN where it could not be measured.

    Returns:
        (P,) one mean a person; NaN where none of their pictures could be measured.
    """
    assert people.shape == values.shape
    _, person = np.unique(people, return_inverse=True)
    measured = ~np.isnan(values)
    counts = np.bincount(person, measured)
    sums = np.bincount(person, np.where(measured, values, 0.0))
    means: Array = np.divide(sums, counts, out=np.full(len(counts), np.nan), where=counts > 0)
    return means


def interval(values: Array, resamples: int, seed: int) -> Interval:
    """The mean of one number a person and its 95 % percentile-bootstrap interval over people (Efron 1979).

    The same seed and number of people give the same resamples, so metrics and methods are resampled together.

    Args:
        values: (P,) one finite number a person.
        resamples: how many times people are drawn with replacement.
        seed: of the resampling.

    Raises:
        ValueError: there are no people, or a value is NaN or infinite.
    """
    if values.ndim != 1 or not len(values):
        raise ValueError(f"an interval needs one number a person, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"an interval needs finite numbers, got {values[~np.isfinite(values)][0]}")
    low, high = np.percentile(_resampled_means(values, resamples, seed), _TAILS)
    return Interval(float(values[0] + (values - values[0]).mean()), float(low), float(high))


def measured_interval(values: Array, resamples: int, seed: int) -> Interval:
    """The interval over those people who could be measured (their value is not NaN); empty if nobody could."""
    measured = values[~np.isnan(values)]
    return interval(measured, resamples, seed) if len(measured) else Interval(None, None, None)


def paired_interval(values: Array, baseline: Array, resamples: int, seed: int) -> Interval:
    """The interval of the mean difference `values - baseline`, person by person, so that what people share cancels.

    Args:
        values: (P,) one number a person.
        baseline: (P,) the same people in the same order.
        resamples: how many times people are drawn with replacement.
        seed: of the resampling.

    Raises:
        ValueError: the two differ in length, or a value is NaN or infinite.
    """
    if values.shape != baseline.shape:
        raise ValueError(f"a paired interval needs the same people twice, got {values.shape} and {baseline.shape}")
    return interval(values - baseline, resamples, seed)


def _resampled_means(values: Array, resamples: int, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    # Centred on the first value, so that equal values give exactly equal means.
    offsets = values - values[0]
    means = np.empty(resamples)
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        people = generator.integers(len(values), size=(count, len(values)))
        means[start : start + count] = offsets[people].mean(1)
    means += values[0]
    return means
