"""From one row a picture to `metrics.json`: means over people with 95 % intervals (design, section 5)."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd

from lookahead.evaluation.methods import comparable, present
from lookahead.evaluation.statistics import Array, Interval, by_person, interval, measured_interval

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
    "copied": "copied",
}
# Metric: column of the table of the same person and prompt from several noises.
SPREAD = {"diversity": "diversity", "diversity_faces": "diversity_faces", "layout": "layout"}
# These cannot be measured for everybody: a face may never be found, a person may have one photo only.
PARTIAL = ("identity_detected", "identity_other", "copied", "diversity_faces")
Metrics = dict[str, dict[str, Interval]]


def summarise(table: pd.DataFrame, resamples: int, seed: int, names: Collection[str] = METRICS) -> Metrics:
    """Every metric of every method in the table, and the paired comparisons (COMPARISONS) of those that are there.

    Args:
        table: one row a picture with the columns `method`, `person` and those of the metrics.
        resamples: of the bootstrap over people.
        seed: of the resampling.
        names: the metrics wanted, all of METRICS by default.
    """
    methods = present(set(table["method"]))
    means = {method: person_means(table[table["method"] == method], names) for method in methods}
    pairs = comparable(methods)
    means |= {name: _paired(means[pair.method], means[pair.baseline]) for name, pair in pairs.items()}
    return {name: intervals(values, resamples, seed) for name, values in means.items()}


def person_means(rows: pd.DataFrame, names: Collection[str]) -> dict[str, Array]:
    """Each named metric's mean over each person's pictures: arrays (P,), people in ascending order."""
    people = rows["person"].to_numpy(np.int64)
    columns = {name: column for name, column in (METRICS | SPREAD).items() if name in names}
    return {name: by_person(people, rows[column].to_numpy(np.float64)) for name, column in columns.items()}


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


def scale_of_spread(base: pd.DataFrame, resamples: int, seed: int) -> dict[str, Interval]:
    """What diversity and layout could be: the base model's own diversity, and the layout it keeps by chance.

    Args:
        base: its rows, with the columns `person`, `diversity` and `layout_other`.
        resamples: of the bootstrap over people.
        seed: of the resampling.
    """
    people = base["person"].to_numpy(np.int64)
    columns = {"base_diversity": "diversity", "layout_chance": "layout_other"}
    return {
        name: interval(by_person(people, base[column].to_numpy(np.float64)), resamples, seed)
        for name, column in columns.items()
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


def group_of(styles: pd.Series, groups: Mapping[str, list[str]]) -> pd.Series:
    """The group of prompts that each style belongs to."""
    return styles.map({style: name for name, members in groups.items() for style in members})


def by_kind(table: pd.DataFrame, groups: Mapping[str, list[str]], resamples: int, seed: int) -> dict[str, Metrics]:
    """Identity and prompt alignment among the prompts of each group, whose styles `groups` names."""
    return breakdown(table.assign(group=group_of(table["style"], groups)), "group", resamples, seed)


def joined(groups: Mapping[str, Metrics]) -> Metrics:
    """Metrics by kind as groups of `metrics.json`, with names such as "gain.identity"."""
    return {
        kind: {f"{group}.{name}": value for group, values in metrics.items() for name, value in values.items()}
        for kind, metrics in groups.items()
    }
