"""The curves' numbers: every cell's means with intervals, and what tuning changes at each strength, paired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lookahead.artifacts import atomic
from lookahead.config import Curves
from lookahead.curves.cell import Cell, cells_of
from lookahead.evaluation.methods import TUNED, UNTUNED
from lookahead.evaluation.metrics import intervals, person_means
from lookahead.evaluation.statistics import Array, Interval
from lookahead.evaluation.tables import PER_IMAGE, read_rows

FIGURES = ("identity", "prompt", "clip_t", "detection_rate")
Values = Mapping[Cell, dict[str, Array]]  # by figure: one number a person


@dataclass(frozen=True)
class Findings:
    """Every cell's figures, and tuned − untuned at every strength."""

    points: dict[Cell, dict[str, Interval]]
    changes: dict[float, dict[str, Interval]]

    def of(self, method: str) -> list[tuple[float, dict[str, Interval]]]:
        """A method's figures by strength, in the order of the study."""
        return [(cell.scale, figures) for cell, figures in self.points.items() if cell.method == method]


def read_cells(folder: Path, study: Curves) -> dict[Cell, dict[str, Array]]:
    """The person means of every cell below `folder`.

    Raises:
        InputError: a cell is missing, damaged or of another study.
    """
    return {
        cell: person_means(read_rows(folder / cell.name / PER_IMAGE, study.people, "make curves"), FIGURES)
        for cell in cells_of(study)
    }


def find(cells: Values, study: Curves, resamples: int, seed: int) -> Findings:
    """The intervals of every cell and of every paired difference, resampled alike."""
    points = {cell: intervals(values, resamples, seed) for cell, values in cells.items()}
    changes = {}
    for scale in study.scales:
        tuned, untuned = cells[Cell(TUNED, scale)], cells[Cell(UNTUNED, scale)]
        changes[scale] = intervals({name: tuned[name] - untuned[name] for name in tuned}, resamples, seed)
    return Findings(points, changes)


def as_json(findings: Findings) -> dict[str, object]:
    """The numbers as `metrics.json` holds them, each `{mean, low, high}`."""
    groups = {cell.name: figures for cell, figures in findings.points.items()}
    groups |= {f"difference-{scale}": figures for scale, figures in findings.changes.items()}
    return {group: {name: value.row() for name, value in figures.items()} for group, figures in groups.items()}


def save_csv(findings: Findings, path: Path) -> None:
    """Write one row a cell: method, strength, and every figure with its interval."""
    rows = [
        {"method": cell.method, "scale": cell.scale}
        | {f"{name}.{end}": number for name, value in figures.items() for end, number in value.row().items()}
        for cell, figures in findings.points.items()
    ]
    with atomic(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
