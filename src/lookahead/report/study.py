"""The report of a study, an ablation or curves alike: a table, figures, a grid, and one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lookahead.artifacts import atomic
from lookahead.config import Study
from lookahead.portraits import Person
from lookahead.report.figures import read_findings, save_contrasts, save_tradeoff
from lookahead.report.formats import save_csv
from lookahead.report.pages import grid_lines, inline_file, make_album, save_grid, save_page

SAMPLERS = {"full": "full sampling", "fast": "few steps of the fast child"}
# Others are in the CSV.
SHOWN = ("identity", "prompt", "detected", "style_right", "scene_right", "leak", "identity_loss")


def lines_of(study: Study) -> dict[str, tuple[str, str]]:
    """For each cell its line in the figures and what stands at its marker: strengths of one adapter are one line."""
    scales = {name: cell.sampling.get("adapter_scale") for name, cell in study.cells.items()}
    labels = {name: cell.label for name, cell in study.cells.items()}
    return {n: (labels[n], "") if s is None else (labels[n].split(" at ")[0], f"{s:g}") for n, s in scales.items()}


def write_study_report(
    name: str,
    study: Study,
    table: pd.DataFrame,
    summary: pd.DataFrame,
    contrasts: pd.DataFrame,
    people: Sequence[Person],
    pictures: Path,
    out: Path,
) -> None:
    """Write `table.md`, `table.csv`, `contrasts.csv`, `contrasts.png`, `tradeoff.png`, `grid.jpg`, `report.html`.

    `table`, `people` and `pictures` are as in `make_album`, `summary` and `contrasts` over all pictures of every cell
    and sampler. Cells and samplers are in the order of every table; the grid is of the first sampler.
    """
    samplers = {sampler: SAMPLERS.get(sampler, sampler) for sampler in study.samplers}
    labels = {key: cell.label for key, cell in study.cells.items()}
    found = read_findings(table, summary, contrasts, labels, samplers)
    metrics, tables = [metric for metric in SHOWN if metric in set(summary["metric"])], {}
    for sampler, label in samplers.items():
        tables[f"Means, {label}"], tables[f"Contrasts, {label}"] = found.tables(metrics, sampler)
    with atomic(out / "table.md") as path:
        text = "\n".join(f"**{head}**\n\n{one.markdown()}" for head, one in tables.items())
        path.write_text(text, encoding="utf-8")
    save_csv(summary, out / "table.csv")
    save_csv(contrasts, out / "contrasts.csv")
    figures = {"contrasts": out / "contrasts.png", "tradeoff": out / "tradeoff.png", "grid": out / "grid.jpg"}
    save_contrasts(found, figures["contrasts"])
    save_tradeoff(found, figures["tradeoff"], lines_of(study))
    first = next(iter(samplers))
    shown = table[(table["sampler"] == first) & table["cell"].isin(list(found.cells))]
    save_grid(grid_lines(make_album(shown, people, pictures, study.grid_people), found.cells, first), figures["grid"])
    content = {
        "name": name,
        "study": study,
        "samplers": samplers,
        "tables": tables,
        "people": table["person"].nunique(),
        "shown": min(study.grid_people, len(people)),
        "metrics": metrics,
        "figures": {name: inline_file(path) for name, path in figures.items()},
    }
    save_page("study.html.j2", out / "report.html", content)
