"""The report of a study, an ablation or curves alike: a table, figures, a grid, and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lookahead.portraits import Person


@dataclass(frozen=True)
class StudyCell:
    """How the report shows a cell: its name in the table, its label, and its part in the figures.

    Cells of one `line` are joined in the figures, in their order; `point` stands at the cell's marker, such as the
    strength of its adapter.
    """

    name: str
    label: str
    line: str = ""
    point: str = ""


@dataclass(frozen=True)
class Study:
    """What the report says of a study: its name, its question, notes for the page, its cells, and its samplers' labels.

    Cells and samplers are in the order of every table; the first sampler is that of the grid.
    """

    name: str
    question: str
    cells: Sequence[StudyCell]
    samplers: Mapping[str, str] = field(default_factory=lambda: {"full": "full sampling"})
    notes: str = ""


def write_study_report(
    study: Study,
    table: pd.DataFrame,
    summary: pd.DataFrame,
    contrasts: pd.DataFrame,
    out: Path,
    *,
    people: Sequence[Person],
    pictures: Path,
    grid_people: int = 6,
) -> None:
    """Write `table.md`, `table.csv`, `contrasts.csv`, `contrasts.png`, `tradeoff.png`, `grid.jpg`, `report.html`.

    Args:
        study: what the report says of the cells.
        table: one row a picture, in the order in which each cell's pictures were drawn.
        summary: rows of `contrasts.summary` of every cell and sampler, over all pictures.
        contrasts: rows of `contrasts.contrasts`, over all pictures.
        out: the folder to write to; `metrics.json` is not written.
        people: those of the table, by number.
        pictures: holds `<cell>/<sampler>/<training_seed>/00000.parquet` (`album.picture_folder`).
        grid_people: how many people the grid shows, the first ones.
    """
    raise NotImplementedError
