"""The report of the main evaluation: figures, a grid, the tables that DVC plots, and one self-contained page."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from lookahead.artifacts import atomic
from lookahead.evaluation.cells import FULL, LABELS
from lookahead.evaluation.contrasts import ALL
from lookahead.evaluation.evaluate import HEADLINE, PICTURES, PRIMARY, SCALE, Tables, rights
from lookahead.evaluation.evaluator import save_csv, save_table
from lookahead.report import figures as plots
from lookahead.report import pages
from lookahead.report.formats import markdown, read_findings, sample, title

TABLE = "headline.md"
GAIN = "gain"  # the contrast that the verdict is about
SECTIONS = {  # those below the headline
    "Was the loss’s recogniser fooled?": ("identity", "identity_select", "identity_loss", "identity_detected"),
    "Is the photo copied, are pictures diverse?": ("identity_other", "copied", "leak", "diversity", "diversity_faces"),
}
LEVELS = {  # of the pseudo-cell SCALE
    "same_person": "identity of another photo of the same person",
    "stranger": "identity of somebody else’s photo",
    "base_diversity": "diversity of the base model’s own pictures",
    "layout_chance": "layout kept between two of the base model’s pictures of one prompt from different noise",
}
PREVIEWS = {"identity": "Recognised as the reference (cosine)", "error": "Squared error to the noised photo"}


def write_evaluation_report(measured: Tables, out: Path, grid_people: int) -> None:
    """Write `report.html`, `headline.md`, `album.parquet`, `preview_curves.csv` and `grids/*.png` into `out`.

    `out` has the evaluation's pictures. Those of the first `grid_people` people are shown.
    """
    protocol: Mapping[str, Any] = measured.protocol
    labels = LABELS | {cell: cell for cell in measured.table["cell"].unique() if cell not in LABELS}
    found = read_findings(measured.table, measured.summary, measured.contrasts, labels)
    folders = {cell: out / PICTURES / cell for cell in found.cells}
    album = pages.make_album(measured.table, measured.people, folders, grid_people)
    save_table(album, out / pages.ALBUM)
    save_csv(preview_curves(measured.previews), out / "preview_curves.csv")
    with atomic(out / TABLE) as path:  # methods and contrasts in one
        path.write_text(markdown(pd.concat(found.tables(PRIMARY))), encoding="utf-8")
    pages.save_grid(album, found.cells, out / "grids" / "people.png")
    figures = {name: out / "grids" / f"{name}.png" for name in ("tradeoff", "contrasts", "previews")}
    plots.save_tradeoff(found, [FULL], figures["tradeoff"])
    plots.save_contrasts(found, [FULL], figures["contrasts"])
    panels = [
        partial(plots.plot_curves, head=head, x="t", curves=preview_curves(measured.previews, metric))
        for metric, head in PREVIEWS.items()
    ]
    plots.save_panels(figures["previews"], 3.9, *panels)
    shown = {label: album[album["cell"] == cell] for cell, label in found.cells.items()}
    sections = {"Prompt by part, and layout": (*rights(measured.table), "layout"), **SECTIONS}
    kinds = [protocol["groups"], *protocol["words"].values()]
    gains = {metric: found.estimates[GAIN, FULL, ALL, metric] for metric in PRIMARY}
    content = {
        "gain": f"{found.pairs[GAIN].capitalize()} ({sample(gains.values())})",
        "gains": {title(metric): gain for metric, gain in gains.items()},
        "people": pages.people_of(album, shown, protocol["people"]),
        "scale": {label: found.estimates.get((SCALE, FULL, ALL, name)) for name, label in LEVELS.items()},
        "headline": found.tables(HEADLINE),
        "sections": {head: found.tables(metrics) for head, metrics in sections.items()},
        "groups": [found.tables(PRIMARY, groups=list(kind)) for kind in kinds],
        "metrics": dict.fromkeys([*HEADLINE, *itertools.chain(*sections.values())]),
        "protocol": protocol,
        "figures": pages.inline_files(figures),
    }
    pages.save_page("evaluation.html.j2", out / "report.html", content)


def preview_curves(previews: pd.DataFrame, metric: str = "identity") -> pd.DataFrame:
    """A metric of one-step previews: a row a timestep, a column a strength of the fast child (0: naive x0)."""
    wide = previews.pivot(index="t", columns="scale", values=metric)
    return wide.rename(columns=lambda scale: f"scale {scale:g}").reset_index().rename_axis(columns=None)
