"""Numbers, intervals, tables and metrics' titles as people read them: on pages, in Markdown and in a terminal."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lookahead.artifacts import atomic
from lookahead.evaluation.contrasts import NOT_MEASURED

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


def number(value: float, form: str = ".3f") -> str:
    """A number with three decimals, or in the form given; "–" where nothing was measured."""
    return "–" if math.isnan(value) else format(value, form).replace("-", "−")


def parameter(value: object) -> str:
    """A parameter's value; one that a trial does not have is empty."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return "" if value is None else str(value)


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

    def _text(self, value: float) -> str:
        return number(value, "+z.3f" if self.verdict else "z.3f")

    @property
    def number(self) -> str:
        """The mean, of a contrast with its sign."""
        return self._text(self.mean)

    @property
    def interval(self) -> str:
        """The interval, or nothing where there is none."""
        return "" if math.isnan(self.low) else f"{self._text(self.low)} to {self._text(self.high)}"

    @property
    def note(self) -> str:
        """A contrast's verdict, and whether it stays within the margin."""
        return self.verdict + ", not inferior" * self.non_inferior

    def __str__(self) -> str:
        interval = f" [{self.interval}]" if self.interval else ""
        return f"{self.number}{interval}" + (f", {self.note}" if self.note else "")


Estimates = dict[tuple[str, str, str, str], Estimate]  # by cell or contrast, sampler, group, metric


def read_estimates(frame: pd.DataFrame, name: str, untrained: Collection[str] = ()) -> Estimates:
    """The rows of `contrasts.summary` or `contrasts.contrasts` by the column `name`, "cell" or "contrast".

    Nothing was trained for the cells `untrained`.
    """
    found = {}
    for row in frame.to_dict("records"):
        numbers = (row["mean"], row["low"], row["high"], int(row["people"]))
        seeds = 0 if row[name] in untrained else int(row["seeds"])
        kept = str(row.get("non_inferior")) == "True"
        key = (row[name], row["sampler"], str(row["group"]), row["metric"])
        found[key] = Estimate(*numbers, seeds, row.get("verdict", ""), kept)
    return found


@dataclass(frozen=True)
class Row:
    """One row of a table: its label and its entries; None is an empty one."""

    label: str
    entries: Sequence[str | Estimate | None]
    emphasised: bool = False

    @property
    def sample(self) -> str:
        """How many people and training seeds its estimates are over; with one seed they hold for this training."""
        found = [one for one in self.entries if isinstance(one, Estimate) and one.verdict != NOT_MEASURED]
        if not found:
            return ""
        people, seeds = sorted({one.people for one in found}), max(one.seeds for one in found)
        count = str(people[0]) if len(people) == 1 else f"{people[0]} to {people[-1]}"
        return f"{count} people, " + {0: "no training", 1: "this training"}.get(seeds, f"{seeds} seeds")


@dataclass(frozen=True)
class Table:
    """A table with a heading for the labels and one for each entry."""

    heads: Sequence[str]
    rows: Sequence[Row]

    @property
    def sampled(self) -> bool:
        """Whether it holds estimates, so that its last column is the size of the sample."""
        return any(row.sample for row in self.rows)

    def markdown(self) -> str:
        """The table in Markdown, its columns aligned, so that a terminal may show it, too."""
        rows = [[row.label, *("" if e is None else str(e) for e in row.entries), row.sample] for row in self.rows]
        lines = [line if self.sampled else line[:-1] for line in ([*self.heads, "sample"], *rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines.insert(1, ["-" * width for width in widths])
        return "".join(f"| {' | '.join(map(str.ljust, line, widths))} |\n" for line in lines)


def save_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as CSV; equal frames are equal bytes."""
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
