"""From one row a picture to `metrics.json`: means over people with 95 % intervals (design, section 5)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from lookahead.evaluation.statistics import Array, Interval, by_person, interval, measured_interval

UNTUNED, NOISE_ONLY, TUNED = METHODS = ("adapter", "noise_only", "tuned")
COMPARISONS = {"difference": (TUNED, UNTUNED), "gain": (TUNED, NOISE_ONLY)}
# Metric: column of the table of pictures.
METRICS = {
    "identity": "identity",
    "prompt": "prompt_right",
    "clip_t": "clip_t",
    "detection_rate": "detected",
    "style": "style_right",
    "scene": "scene_right",
    "identity_select": "identity_select",
    "identity_loss": "identity_loss",
    "identity_detected": "identity_detected",
    "identity_other": "identity_other",
}
# These cannot be measured for everybody: a face may never be found, a person may have one photo only.
PARTIAL = ("identity_detected", "identity_other")
Metrics = dict[str, dict[str, Interval]]


def summarise(table: pd.DataFrame, resamples: int, seed: int, names: Collection[str] = METRICS) -> Metrics:
    """Every metric of every method, `difference` (tuned - untuned) and `gain` (tuned - noise only), paired.

    Args:
        table: one row a picture with the columns `method`, `person` and those of METRICS.
        resamples: of the bootstrap over people.
        seed: of the resampling.
        names: the metrics wanted, all by default.
    """
    means = {method: person_means(table[table["method"] == method], names) for method in METHODS}
    means |= {name: _paired(means[one], means[other]) for name, (one, other) in COMPARISONS.items()}
    return {name: intervals(values, resamples, seed) for name, values in means.items()}


def person_means(rows: pd.DataFrame, names: Collection[str]) -> dict[str, Array]:
    """Each named metric's mean over each person's pictures: arrays (P,), people in ascending order."""
    people = rows["person"].to_numpy(np.int64)
    return {
        name: by_person(people, rows[column].to_numpy(np.float64)) for name, column in METRICS.items() if name in names
    }


def intervals(means: dict[str, Array], resamples: int, seed: int) -> dict[str, Interval]:
    """The interval of each metric; only the PARTIAL ones may leave people out."""
    chosen = {name: measured_interval if name in PARTIAL else interval for name in means}
    return {name: chosen[name](values, resamples, seed) for name, values in means.items()}


def _paired(values: dict[str, Array], baseline: dict[str, Array]) -> dict[str, Array]:
    return {name: values[name] - baseline[name] for name in values}


def scale_of_identity(
    references: list[Array], others: list[list[Array]], resamples: int, seed: int
) -> dict[str, Interval]:
    """What identity could be: of another photo of the same person (`same_person`), and of someone else (`stranger`).

    Args:
        references: for each person (D,) the unit embedding of the reference photo.
        others: for each person those of the other photos; there may be none.
        resamples: of the bootstrap over people.
        seed: of the resampling.
    """
    cosines = np.stack(references) @ np.stack(references).T
    strangers = (cosines.sum(1) - cosines.diagonal()) / (len(references) - 1)
    same = [
        np.mean([own @ photo for photo in photos]) if photos else np.nan
        for own, photos in zip(references, others, strict=True)
    ]
    return {
        "same_person": measured_interval(np.array(same), resamples, seed),
        "stranger": interval(strangers, resamples, seed),
    }


def rows_of(metrics: Metrics) -> dict[str, dict[str, dict[str, float | None]]]:
    """The metrics as `metrics.json` holds them: each `{mean, low, high}`."""
    return {group: {name: value.row() for name, value in values.items()} for group, values in metrics.items()}


def flatten(metrics: Metrics) -> dict[str, float]:
    """The measured numbers under names such as "gain.identity", "gain.identity.low", for a log."""
    numbers: dict[str, float] = {}
    for group, values in metrics.items():
        for name, value in values.items():
            triple = {"": value.mean, ".low": value.low, ".high": value.high}
            numbers |= {f"{group}.{name}{end}": number for end, number in triple.items() if number is not None}
    return numbers


def breakdown(table: pd.DataFrame, column: str, resamples: int, seed: int) -> dict[str, Metrics]:
    """Identity and prompt alignment among the pictures of each style (or scene): value of `column` -> metrics."""
    names = ("identity", "prompt")
    return {str(value): summarise(rows, resamples, seed, names) for value, rows in table.groupby(column, sort=False)}
