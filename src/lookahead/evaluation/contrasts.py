"""From the long table, one row a picture, to means and paired contrasts with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from lookahead.errors import InputError
from lookahead.evaluation.statistics import Array, crossed_interval, holm

ALL = "all"
UNTRAINED = -1  # the training seed of a cell without a training
HIGHER, LOWER, NOT_SIGNIFICANT, NOT_MEASURED = "higher", "lower", "not significant", "not measured"
COLUMNS = ["contrast", "cell", "baseline", "sampler", "group", "metric", "mean", "low", "high", "people", "seeds", "p"]
_LEVEL = 0.05


@dataclass(frozen=True)
class Contrast:
    """A paired difference, `cell` minus `baseline`, and its name."""

    name: str
    cell: str
    baseline: str


def summary(table: pd.DataFrame, metrics: Sequence[str], group: str | None = None) -> pd.DataFrame:
    """The mean and 95 % interval of each metric of every cell and sampler, in each group of pictures.

    `group` is a column whose values form groups; None is all pictures, the group "all". Returns the columns cell,
    sampler, group, metric, mean, low, high, people, seeds.
    """
    rows = [
        {"cell": cell, "sampler": sampler, "group": name, "metric": metric} | asdict(crossed_interval(means.to_numpy()))
        for sampler, name, cells in _parts(table, metrics, group)
        for cell, by_metric in cells.items()
        for metric, means in by_metric.items()
    ]
    return pd.DataFrame(rows).drop(columns="p")


def contrasts(
    table: pd.DataFrame,
    pairs: Sequence[Contrast],
    metrics: Sequence[str],
    group: str | None = None,
    margin: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Paired differences, person by person and seed by seed, and their verdicts.

    Holm corrects for the pairs that are compared in one metric by one sampler in one group of pictures. A baseline with
    one seed is compared with every seed of the cell. A pair is left out where a cell is missing. `margin` is by metric
    the loss that still counts as "no worse".

    Returns COLUMNS, p_holm, verdict and non_inferior: whether the interval excludes a loss of the margin; None where
    the metric has none.
    """
    rows = []
    for sampler, name, cells in _parts(table, metrics, group):
        for pair in (pair for pair in pairs if pair.cell in cells and pair.baseline in cells):
            for metric in metrics:
                interval = crossed_interval(_difference(pair, cells[pair.cell][metric], cells[pair.baseline][metric]))
                names = (pair.name, pair.cell, pair.baseline, sampler, name, metric)
                rows.append(dict(zip(COLUMNS, names, strict=False)) | asdict(interval))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    families = frame.groupby(["sampler", "group", "metric"])["p"]
    p = families.transform(lambda p: holm(p.to_numpy(np.float64))).to_numpy(np.float64)
    cases = [np.isnan(p), p > _LEVEL, frame["mean"] > 0]
    verdicts = np.select(cases, [NOT_MEASURED, NOT_SIGNIFICANT, HIGHER], LOWER)
    limits = frame["metric"].map(dict(margin or {})).astype(float)
    within = (frame["low"] > -limits).astype(object).where(limits.notna() & frame["low"].notna(), None)
    return frame.assign(p_holm=p, verdict=verdicts, non_inferior=within)


def _parts(
    table: pd.DataFrame, metrics: Sequence[str], group: str | None
) -> Iterator[tuple[str, str, dict[str, dict[str, pd.DataFrame]]]]:
    """Each sampler and group of pictures with means by cell and metric: a row a training seed, a column a person."""
    groups = pd.Series(ALL, table.index) if group is None else table[group]
    keys = [table["sampler"].rename("_sampler"), groups.rename("_group")]
    for (sampler, name), part in table.groupby(keys, sort=False):
        cells = {}
        for cell, rows in part.groupby("cell", sort=False):
            means = rows.groupby(["training_seed", "person"])[list(metrics)].mean().astype(np.float64)
            cells[str(cell)] = {metric: means[metric].unstack("person") for metric in metrics}
        yield str(sampler), str(name), cells


def _difference(pair: Contrast, cell: pd.DataFrame, baseline: pd.DataFrame) -> Array:
    """The cell's means less the baseline's, (S, P); one seed of either is paired with every one of the other."""
    if only := sorted(map(str, set(cell.columns) ^ set(baseline.columns))):
        raise InputError(
            f"the contrast {pair.name} needs the same people twice: only one of {pair.cell} and {pair.baseline} has "
            f"{len(only)} of them, such as {only[0]}"
        )
    seeds, others = cell.index.tolist(), baseline.index.tolist()
    if seeds != others and min(len(seeds), len(others)) > 1:
        raise InputError(
            f"the contrast {pair.name} needs the same training seeds twice: {pair.cell} has {seeds}, {pair.baseline} "
            f"has {others}"
        )
    return np.subtract(cell.to_numpy(), baseline.to_numpy())
