"""The reports of studies: of cells, as in the ablation and the curves, and of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from lookahead.artifacts import atomic
from lookahead.config import Study
from lookahead.evaluation.cells import FULL
from lookahead.evaluation.contrasts import ALL
from lookahead.evaluation.evaluate import PRIMARY, rights
from lookahead.evaluation.evaluator import save_csv
from lookahead.portraits import Person
from lookahead.report.figures import label_tradeoff, save_contrasts, save_panels, save_tradeoff
from lookahead.report.formats import estimate_table, markdown, read_estimates, read_findings, title
from lookahead.report.pages import inline_files, make_album, save_grid, save_page

SHOWN = ("identity", "prompt", "detected", "leak", "identity_loss")  # and the parts of `prompt`; others are in the CSV


def lines_of(study: Study) -> dict[str, tuple[str, str]]:
    """For each cell its line in the figures and the note at its marker: strengths of one adapter are one line."""
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
    pictures: Mapping[str, Path],
    out: Path,
) -> None:
    """Write `table.md`, `table.csv`, `contrasts.csv`, `contrasts.png`, `tradeoff.png`, `grid.jpg`, `report.html`.

    `table`, `people` and `pictures` are as in `make_album`, `summary` and `contrasts` over all pictures of every cell
    and sampler. Cells and samplers are in the order of every table; the grid is of the first sampler.
    """
    found = read_findings(table, summary, contrasts, {key: cell.label for key, cell in study.cells.items()})
    tables, shown = {}, (*SHOWN, *rights(table))
    for sampler in study.samplers:
        tables[f"Means, sampler {sampler}"], tables[f"Contrasts, sampler {sampler}"] = found.tables(shown, sampler)
    with atomic(out / "table.md") as path:
        text = "\n".join(f"**{head}**\n\n{markdown(one)}" for head, one in tables.items())
        path.write_text(text, encoding="utf-8")
    save_csv(summary, out / "table.csv")
    save_csv(contrasts, out / "contrasts.csv")
    figures = {"contrasts": out / "contrasts.png", "tradeoff": out / "tradeoff.png", "grid": out / "grid.jpg"}
    save_contrasts(found, study.samplers, figures["contrasts"])
    save_tradeoff(found, study.samplers, figures["tradeoff"], lines_of(study))
    first = next(iter(study.samplers))
    album = make_album(table[table["sampler"] == first], people, pictures, study.grid_people)
    save_grid(album, found.cells, figures["grid"], first)
    content = {
        "name": name,
        "study": study,
        "tables": tables,
        "people": table["person"].nunique(),
        "metrics": shown,
        "figures": inline_files(figures),
    }
    save_page("study.html.j2", out / "report.html", content)


def save_front(
    trials: pd.DataFrame, notes: Mapping[int, str], untuned: Mapping[str, float], prompt_loss: float, path: Path
) -> None:
    """Draw every trial's identity against prompt alignment, with the front and the untuned adapter, into a PNG file.

    `notes` stand at the markers of trials. A line shows by how much (`prompt_loss`) prompt alignment may fall below the
    untuned adapter's.
    """
    done = trials[trials["state"] == "complete"].sort_values("prompt")

    def draw(axis: Axes) -> None:
        for label, rows, style in (("trials", done, "o"), ("front", done[done["front"].astype(bool)], "o-")):
            axis.plot(rows["prompt"], rows["identity"], style, label=label)
        axis.plot([untuned["prompt"]], [untuned["identity"]], "s", color="grey", label="untuned adapter")
        for row in done[done["number"].isin(list(notes))].itertuples():
            axis.annotate(notes[row.number], (row.prompt, row.identity), (5, 4), textcoords="offset points")
        tolerated = untuned["prompt"] - prompt_loss
        axis.axvline(tolerated, color="grey", linestyle=":", label="tolerated loss of prompt alignment")
        label_tradeoff(axis, "Every trial: up and right is better")

    save_panels(path, 4.8, draw)


def search_tables(
    trials: pd.DataFrame, notes: Mapping[int, str], estimates: Mapping[str, pd.DataFrame]
) -> dict[str, pd.DataFrame]:
    """The scores and the settings of the trials of the front and of those with notes.

    `trials` has one row a trial: number, state, identity, prompt, reason, front, and a column a parameter. `estimates`
    are rows of `contrasts.summary` and `contrasts.contrasts` whose cells are numbers of trials, as text.
    """
    shown = trials[trials["front"].astype(bool) | trials["number"].isin(list(notes))]
    shown = shown.sort_values("identity", ascending=False).set_index("number")
    labels = {number: f"{number}, {notes[number]}" if number in notes else str(number) for number in shown.index}
    tables = {}
    for part, frame in estimates.items():
        found = read_estimates(frame, "cell")
        entries = {n: [found.get((str(n), FULL, ALL, metric)) for metric in PRIMARY] for n in labels}
        rows = {labels[n]: row for n, row in entries.items() if any(row)}
        tables[part] = estimate_table(rows, [f"{title(metric)}, {part}" for metric in PRIMARY])
    settings = shown.drop(columns=["state", *PRIMARY, "reason", "front"]).rename(index=labels)
    return tables | {"settings": settings.T.fillna("")}
