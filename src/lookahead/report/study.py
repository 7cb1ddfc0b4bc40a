"""The report of a study, an ablation or curves alike: a table, figures, a grid, and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from lookahead.artifacts import atomic
from lookahead.portraits import Person
from lookahead.report.album import grid_lines, make_album
from lookahead.report.figures import ACCENT, BLUE, Series, Trace, colours, plot_intervals, plot_tradeoff, save_panels
from lookahead.report.formats import (
    ALL,
    FULL,
    Row,
    Table,
    as_markdown,
    read_contrasts,
    read_summary,
    save_csv,
    untrained,
)
from lookahead.report.glossary import MEANINGS, TITLES
from lookahead.report.grids import save_grid
from lookahead.report.pages import inline_file, save_page

_SAMPLER_COLOURS = (ACCENT, BLUE, "#2a9d8f", "#7a2e6b")
_FIGURES = ("contrasts.png", "tradeoff.png", "grid.jpg")


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
    samplers: Mapping[str, str] = field(default_factory=lambda: {FULL: "full sampling"})
    notes: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """The cells' labels by their names."""
        return {cell.name: cell.label for cell in self.cells}


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
    tables = study_tables(study, summary, contrasts, untrained(table))
    with atomic(out / "table.md") as path:
        text = "\n".join(f"**{title}**\n\n{as_markdown(one)}" for title, one in tables.items())
        path.write_text(text, encoding="utf-8")
    save_csv(summary, out / "table.csv")
    save_csv(contrasts, out / "contrasts.csv")
    _save_contrasts(study, contrasts, out / "contrasts.png")
    _save_tradeoff(study, summary, out / "tradeoff.png")
    sampler = next(iter(study.samplers))
    album = make_album(table[table["sampler"] == sampler], people, pictures, grid_people)
    save_grid(grid_lines(album, study.labels, sampler), out / "grid.jpg")
    content: dict[str, object] = {
        "study": study,
        "tables": tables,
        "people": table["person"].nunique(),
        "shown": min(grid_people, len(people)),
        "meanings": {TITLES[metric]: MEANINGS[metric] for metric in summary["metric"].unique()},
        "figures": {name.split(".")[0]: inline_file(out / name) for name in _FIGURES},
    }
    save_page("study.html.j2", out / "report.html", content)


def study_tables(
    study: Study, summary: pd.DataFrame, contrasts: pd.DataFrame, without_training: set[str]
) -> dict[str, Table]:
    """By title: for each sampler every cell's means, and every contrast."""
    means, changes = read_summary(summary, without_training), read_contrasts(contrasts)
    metrics = list(summary["metric"].unique())
    heads = [TITLES[metric] for metric in metrics]
    tables = {}
    for sampler, title in study.samplers.items():
        rows = [Row(c.label, [means.get((c.name, sampler, ALL, m)) for m in metrics]) for c in study.cells]
        tables[f"Means, {title}"] = Table(["", *heads], rows)
        pairs = _pairs(study, contrasts[contrasts["sampler"] == sampler])
        rows = [Row(label, [changes.get((pair, sampler, ALL, m)) for m in metrics]) for pair, label in pairs.items()]
        tables[f"Contrasts, {title}"] = Table(["", *heads], rows)
    return tables


def _pairs(study: Study, contrasts: pd.DataFrame) -> dict[str, str]:
    """The contrasts' labels by their names."""
    rows = contrasts.drop_duplicates("contrast")[["contrast", "cell", "baseline"]]
    return {pair: f"{study.labels[cell]} against {study.labels[baseline]}" for pair, cell, baseline in rows.to_numpy()}


def _save_contrasts(study: Study, contrasts: pd.DataFrame, path: Path) -> None:
    found, pairs = read_contrasts(contrasts), _pairs(study, contrasts)
    panels = []
    for metric in ("identity", "prompt"):
        series = [
            Series(label, colour, [found.get((pair, sampler, ALL, metric)) for pair in pairs])
            for (sampler, label), colour in zip(study.samplers.items(), _SAMPLER_COLOURS, strict=False)
        ]
        title = f"{TITLES[metric].capitalize()}: contrasts (hollow: not significant)"
        panels.append(partial(plot_intervals, title=title, rows=list(pairs.values()), series=series))
    save_panels(path, 0.45 * len(pairs) + 1.4, *panels, share_y=True)


def _save_tradeoff(study: Study, summary: pd.DataFrame, path: Path) -> None:
    found = read_summary(summary)
    lines: dict[str, list[StudyCell]] = {}
    for cell in study.cells:
        lines.setdefault(cell.line or cell.label, []).append(cell)
    colour = colours([cells[0].name for cells in lines.values()])
    panels = []
    for sampler, title in study.samplers.items():
        traces = [
            Trace(
                label,
                colour[cells[0].name],
                [(*(found.get((c.name, sampler, ALL, m)) for m in ("prompt", "identity")), c.point) for c in cells],
            )
            for label, cells in lines.items()
        ]
        panels.append(partial(plot_tradeoff, title=f"Up and right is better: {title}", traces=traces))
    save_panels(path, 5.0, *panels, share_y=True)
