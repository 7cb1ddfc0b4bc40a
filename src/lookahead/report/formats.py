"""Numbers, intervals and tables as people read them: on pages, in Markdown and in a terminal."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lookahead.artifacts import atomic
from lookahead.evaluation.contrasts import NOT_SIGNIFICANT

FULL = "full"  # the sampler of the main evaluation


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

    A contrast has a verdict after Holm: higher, lower or not significant.
    """

    mean: float
    low: float
    high: float
    people: int
    seeds: int
    verdict: str = ""
    non_inferior: bool = False

    @property
    def number(self) -> str:
        """The mean, of a contrast with its sign."""
        return number(self.mean, self._form)

    @property
    def interval(self) -> str:
        """The interval, or nothing where there is none."""
        ends = (number(end, self._form) for end in (self.low, self.high))
        return "" if math.isnan(self.low) else " to ".join(ends)

    @property
    def note(self) -> str:
        """What a contrast that is not significant is called, and whether it stays within the margin."""
        said = {NOT_SIGNIFICANT: self.verdict == NOT_SIGNIFICANT, "not inferior": self.non_inferior}
        return ", ".join(words for words, holds in said.items() if holds)

    @property
    def _form(self) -> str:
        return "+z.3f" if self.verdict else "z.3f"

    def __str__(self) -> str:
        interval = f" [{self.interval}]" if self.interval else ""
        return f"{self.number}{interval}" + (f", {self.note}" if self.note else "")


Estimates = dict[tuple[str, str, str, str], Estimate]  # by cell or contrast, sampler, group, metric


def read_summary(frame: pd.DataFrame, untrained: Collection[str] = ()) -> Estimates:
    """The rows of `contrasts.summary` by cell; nothing was trained for the cells `untrained`."""
    return {
        (row.cell, row.sampler, str(row.group), row.metric): Estimate(
            row.mean, row.low, row.high, int(row.people), 0 if row.cell in untrained else int(row.seeds)
        )
        for row in frame.itertuples()
    }


def read_contrasts(frame: pd.DataFrame) -> Estimates:
    """The rows of `contrasts.contrasts` by contrast."""
    return {
        (row.contrast, row.sampler, str(row.group), row.metric): Estimate(
            row.mean, row.low, row.high, int(row.people), int(row.seeds), row.verdict, str(row.non_inferior) == "True"
        )
        for row in frame.itertuples()
    }


Entry = str | Estimate | None


@dataclass(frozen=True)
class Row:
    """One row of a table: its label and its entries; None is an empty one."""

    label: str
    entries: Sequence[Entry]
    emphasised: bool = False

    @property
    def sample(self) -> str:
        """How many people and training seeds its estimates are over; with one seed they hold for this training."""
        found = [entry for entry in self.entries if isinstance(entry, Estimate)]
        if not found:
            return ""
        people = sorted({one.people for one in found})
        seeds = max(one.seeds for one in found)
        count = " to ".join(map(str, people if len(people) < 3 else (people[0], people[-1])))
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

    def texts(self) -> list[list[str]]:
        """Heads and rows as texts."""
        rows = [[row.label, *("" if e is None else str(e) for e in row.entries), row.sample] for row in self.rows]
        return [line if self.sampled else line[:-1] for line in ([*self.heads, "sample"], *rows)]


def as_markdown(table: Table) -> str:
    """The table in Markdown."""
    heads, *rows = table.texts()
    return "".join(f"| {' | '.join(line)} |\n" for line in (heads, ["---"] * len(heads), *rows))


def as_text(table: Table) -> str:
    """The table in columns, for a terminal."""
    lines = table.texts()
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def save_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as CSV; equal frames are equal bytes."""
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
