"""An evaluation as tables that plotting programs read: by group of prompts, and previews with one column a strength."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lookahead.artifacts import atomic
from lookahead.evaluation.metrics import group_of
from lookahead.evaluation.statistics import by_person, interval

GROUPS, CURVES = "groups.csv", "preview_curves.csv"
_FIGURES = {"identity": "identity", "prompt": "prompt_right"}


def by_group(table: pd.DataFrame, groups: Mapping[str, list[str]], resamples: int, seed: int) -> pd.DataFrame:
    """One row a method and group of prompts: identity and prompt alignment with 95 % intervals over people.

    Args:
        table: one row a picture.
        groups: the styles of each group.
        resamples: of the bootstrap over people.
        seed: of the resampling.
    """
    rows: list[dict[str, str | float | None]] = []
    for (method, group), pictures in table.groupby(["method", group_of(table["style"], groups)], sort=False):
        row: dict[str, str | float | None] = {"series": f"{method}, {group}", "method": method, "group": group}
        people = pictures["person"].to_numpy(np.int64)
        for name, column in _FIGURES.items():
            value = interval(by_person(people, pictures[column].to_numpy(np.float64)), resamples, seed)
            row |= {name: value.mean, f"{name}_low": value.low, f"{name}_high": value.high}
        rows.append(row)
    return pd.DataFrame(rows)


def preview_curves(previews: pd.DataFrame) -> pd.DataFrame:
    """The identity of one-step previews, a row a timestep and a column a strength of the fast child (0: naive x0)."""
    wide = previews.pivot(index="t", columns="scale", values="identity")
    return wide.rename(columns=lambda scale: f"scale {scale:g}").reset_index().rename_axis(columns=None)


def save_series(
    table: pd.DataFrame,
    previews: pd.DataFrame,
    groups: Mapping[str, list[str]],
    resamples: int,
    seed: int,
    work: Path,
) -> None:
    """Write `groups.csv` and `preview_curves.csv` into `work`."""
    tables = {GROUPS: by_group(table, groups, resamples, seed), CURVES: preview_curves(previews)}
    for name, made in tables.items():
        with atomic(work / name) as path:
            made.to_csv(path, index=False, float_format="%.6f", lineterminator="\n")
