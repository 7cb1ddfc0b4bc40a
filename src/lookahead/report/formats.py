"""Numbers, intervals and tables as people read them: on pages, in Markdown and in a terminal."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lookahead.artifacts import atomic

ALL, FULL, NOT_SIGNIFICANT = "all", "full", "not significant"


def short(value: float) -> str:
    """A number with two decimals, as below a picture."""
    return _formatted(value, "z.2f")


def plain(value: float) -> str:
    """A number with three decimals, as in tables."""
    return _formatted(value, "z.3f")


def signed(value: float) -> str:
    """A difference with its sign and three decimals."""
    return _formatted(value, "+z.3f")


def parameter(value: object) -> str:
    """A parameter's value; one that a trial does not have is empty."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.3g}"
    return "" if value is None else str(value)


def _formatted(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form).replace("-", "−")


@dataclass(frozen=True)
class Estimate:
    """A mean, its 95 % interval, and the numbers of people and training seeds that it is over (0: nothing was trained).

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
        return signed(self.mean) if self.verdict else plain(self.mean)

    @property
    def interval(self) -> str:
        """The interval, or nothing where there is none."""
        show = signed if self.verdict else plain
        return "" if math.isnan(self.low) else f"{show(self.low)} to {show(self.high)}"

    @property
    def note(self) -> str:
        """What a contrast that is not significant is called, and whether it stays within the margin."""
        said = [NOT_SIGNIFICANT] if self.verdict == NOT_SIGNIFICANT else []
        return ", ".join([*said, "not inferior"] if self.non_inferior else said)

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
            row.mean, row.low, row.high, int(row.people), int(row.seeds), row.verdict, row.non_inferior is True
        )
        for row in frame.astype({"non_inferior": object}).itertuples()
    }


def untrained(table: pd.DataFrame) -> set[str]:
    """The cells without a training of their own, from the long table."""
    return set(table.loc[table["training_seed"] < 0, "cell"])


def sample_size(estimates: Iterable[Estimate]) -> str:
    """How many people and training seeds some estimates are over; with one seed they hold for this training."""
    found = list(estimates)
    if not found:
        return ""
    fewest, most = (choose(one.people for one in found) for choose in (min, max))
    seeds = max(one.seeds for one in found)
    people = str(most) if fewest == most else f"{fewest} to {most}"
    return f"{people} people, " + {0: "no training", 1: "this training"}.get(seeds, f"{seeds} seeds")


Entry = str | Estimate | None


@dataclass(frozen=True)
class Row:
    """One row of a table: its label and its entries; None is an empty one."""

    label: str
    entries: Sequence[Entry]
    emphasised: bool = False

    @property
    def sample(self) -> str:
        """How many people and training seeds its estimates are over."""
        return sample_size(entry for entry in self.entries if isinstance(entry, Estimate))


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
    heads, *rows = ("| " + " | ".join(line) + " |" for line in table.texts())
    return "\n".join([heads, "|" + "---|" * len(table.texts()[0]), *rows]) + "\n"


def as_text(table: Table) -> str:
    """The table in columns, for a terminal."""
    lines = table.texts()
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def save_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as CSV; equal frames are equal bytes."""
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
