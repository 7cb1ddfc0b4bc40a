"""The report of a study, an ablation or curves alike: a table, figures, a grid, and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from lookahead.artifacts import atomic
from lookahead.portraits import Person
from lookahead.report.album import grid_lines, make_album
from lookahead.report.findings import read_findings, save_contrasts, save_tradeoff
from lookahead.report.formats import FULL, as_markdown, save_csv
from lookahead.report.glossary import MEANINGS, TITLES
from lookahead.report.grids import save_grid
from lookahead.report.pages import inline_file, save_page


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
    """What the report says of a study; cells and samplers are in the order of every table, the grid is of the first."""

    name: str
    question: str
    cells: Sequence[StudyCell]
    samplers: Mapping[str, str] = field(default_factory=lambda: {FULL: "full sampling"})  # label by name
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
    found = read_findings(table, summary, contrasts, {cell.name: cell.label for cell in study.cells}, study.samplers)
    metrics = [metric for metric in TITLES if metric in set(summary["metric"])]
    tables = {
        f"{title}, {label}": one
        for sampler, label in study.samplers.items()
        for title, one in zip(("Means", "Contrasts"), found.tables(metrics, sampler), strict=True)
    }
    with atomic(out / "table.md") as path:
        text = "\n".join(f"**{title}**\n\n{as_markdown(one)}" for title, one in tables.items())
        path.write_text(text, encoding="utf-8")
    save_csv(summary, out / "table.csv")
    save_csv(contrasts, out / "contrasts.csv")
    figures = {"contrasts": out / "contrasts.png", "tradeoff": out / "tradeoff.png", "grid": out / "grid.jpg"}
    save_contrasts(found, figures["contrasts"])
    save_tradeoff(found, figures["tradeoff"], {c.name: (c.line or c.label, c.point) for c in study.cells})
    sampler = next(iter(study.samplers))
    shown = table[(table["sampler"] == sampler) & table["cell"].isin(list(found.cells))]
    save_grid(grid_lines(make_album(shown, people, pictures, grid_people), found.cells, sampler), figures["grid"])
    content: dict[str, object] = {
        "study": study,
        "tables": tables,
        "people": table["person"].nunique(),
        "shown": min(grid_people, len(people)),
        "meanings": {TITLES[metric]: MEANINGS[metric] for metric in metrics},
        "figures": {name: inline_file(path) for name, path in figures.items()},
    }
    save_page("study.html.j2", out / "report.html", content)
