"""Numbers, intervals, tables and metrics' titles as people read them: on pages, in Markdown and in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from lookahead.evaluation.cells import FULL
from lookahead.evaluation.contrasts import ALL, NOT_MEASURED

_TITLES = {  # of metrics; `templates/page.html.j2` says what they mean
    "prompt": "prompt alignment",
    "clip_t": "CLIP-T",
    "detected": "faces found",
    "identity_select": "identity, recogniser select",
    "identity_loss": "identity, the loss's recogniser",
    "identity_detected": "identity where found",
    "identity_other": "identity to other photos",
    "diversity_faces": "diversity of faces",
    "layout": "layout kept",
}


def title(metric: str) -> str:
    """What a table calls a metric."""
    return _TITLES.get(metric, metric.replace("_", " "))


def number(value: float, form: str = "z.3f") -> str:
    """A number with three decimals, or in the form given; "–" where nothing was measured."""
    return "–" if math.isnan(value) else format(value, form).replace("-", "−")


@dataclass(frozen=True)
class Estimate:
    """A mean, its 95 % interval, and how many people and training seeds it is over (0: nothing was trained).

    A contrast has a verdict after Holm: higher, lower, not significant or not measured.
    """

    mean: float
    low: float
    high: float
    people: int
    seeds: int
    verdict: str = ""
    non_inferior: bool = False

    def __str__(self) -> str:
        mean, low, high = (number(v, "+z.3f" if self.verdict else "z.3f") for v in (self.mean, self.low, self.high))
        interval = "" if math.isnan(self.low) else f" [{low} to {high}]"
        return mean + interval + f", {self.verdict}" * bool(self.verdict) + ", not inferior" * self.non_inferior


Estimates = dict[tuple[str, str, str, str], Estimate]  # by cell or contrast, sampler, group, metric


def read_estimates(frame: pd.DataFrame, name: str, untrained: Iterable[str] = ()) -> Estimates:
    """The rows of `contrasts.summary` or `contrasts.contrasts` by the column `name`, "cell" or "contrast"."""
    found, untrained = {}, set(untrained)
    for row in frame.to_dict("records"):
        numbers = (row["mean"], row["low"], row["high"], int(row["people"]))
        seeds = 0 if row[name] in untrained else int(row["seeds"])
        key = (row[name], row["sampler"], str(row["group"]), row["metric"])
        found[key] = Estimate(*numbers, seeds, row.get("verdict", ""), str(row.get("non_inferior")) == "True")
    return found


def sample(estimates: Iterable[Estimate | None]) -> str:
    """How many people and training seeds estimates are over; with one seed they hold for this training."""
    found = [one for one in estimates if one and one.verdict != NOT_MEASURED]
    if not found:
        return ""
    people, seeds = sorted({one.people for one in found}), max(one.seeds for one in found)
    count = str(people[0]) if len(people) == 1 else f"{people[0]} to {people[-1]}"
    return f"{count} people, " + {0: "no training", 1: "this training"}.get(seeds, f"{seeds} seeds")


def estimate_table(rows: Mapping[str, Sequence[Estimate | None]], heads: Iterable[str]) -> pd.DataFrame:
    """Estimates as text by the labels of the rows, and the size of the sample."""
    lines = {label: [*("" if e is None else str(e) for e in row), sample(row)] for label, row in rows.items()}
    return pd.DataFrame.from_dict(lines, orient="index", columns=[*heads, "sample"])


def markdown(table: pd.DataFrame) -> str:
    """A table of text in Markdown, its columns aligned, so that a terminal may show it, too."""
    return f"{table.to_markdown(disable_numparse=True)}\n"


@dataclass(frozen=True)
class Findings:
    """Estimates of cells and contrasts, and the labels of both, by name, in the order of every table."""

    estimates: Estimates
    cells: Mapping[str, str]
    pairs: Mapping[str, str]

    def of(self, names: Iterable[str], metric: str, sampler: str) -> list[Estimate | None]:
        """A metric of some cells or contrasts over all pictures."""
        return [self.estimates.get((name, sampler, ALL, metric)) for name in names]

    def tables(
        self, metrics: Sequence[str], sampler: str = FULL, groups: Sequence[str] = (ALL,)
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Means and contrasts: a row a cell or contrast and group, a column a metric."""

        def table(labels: Mapping[str, str]) -> pd.DataFrame:
            rows = {
                f"{label}, {group}" if len(groups) > 1 else label: entries
                for name, label in labels.items()
                for group in groups
                if any(entries := [self.estimates.get((name, sampler, group, metric)) for metric in metrics])
            }
            return estimate_table(rows, map(title, metrics))

        return table(self.cells), table(self.pairs)


def read_findings(
    table: pd.DataFrame, summary: pd.DataFrame, contrasts: pd.DataFrame, labels: Mapping[str, str]
) -> Findings:
    """The estimates of the long table's cells that have labels; a training seed below 0 means that none was trained."""
    cells = {cell: label for cell, label in labels.items() if cell in set(table["cell"])}
    rows = contrasts.drop_duplicates("contrast")[["contrast", "cell", "baseline"]]
    pairs = {pair: f"{labels[cell]} against {labels[baseline]}" for pair, cell, baseline in rows.to_numpy()}
    means = read_estimates(summary, "cell", table.loc[table["training_seed"] < 0, "cell"])
    return Findings(means | read_estimates(contrasts, "contrast"), cells, pairs)
