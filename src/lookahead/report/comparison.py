"""`lookahead compare`: evaluations contrasted with the first one, and the same pictures in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lookahead.artifacts import read_json
from lookahead.errors import InputError
from lookahead.evaluation.cells import FULL, HASH, differences
from lookahead.evaluation.contrasts import HIGHER, LOWER, Contrast, contrasts, summary
from lookahead.evaluation.evaluator import read_table
from lookahead.report.formats import markdown, read_findings
from lookahead.report.pages import ALBUM, COLUMNS, people_of, save_page

FILES = ("protocol.json", "per_image.parquet", ALBUM)  # what a comparison reads of an evaluation
METRICS = ("identity", "prompt", "detected")
KEYS = ("cell", "sampler", "training_seed", "person")


@dataclass(frozen=True)
class Run:
    """One cell of one evaluation: its label in the comparison, its protocol, its rows, and the evaluation's album."""

    label: str
    cell: str
    protocol: Mapping[str, Any]
    table: pd.DataFrame
    album: pd.DataFrame


def read_run(label: str, folder: Path, cell: str) -> Run:
    """Read one cell of the folder of an evaluation."""
    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise InputError(f"{folder} is no evaluation: it has no {missing[0]}; run `lookahead evaluate` again")
    table = read_table(folder / "per_image.parquet", [*KEYS, *METRICS])
    if cell not in (known := sorted(table["cell"].unique())):
        raise InputError(f"{folder} has no method {cell!r}: it has {', '.join(known)}")
    own = table[(table["cell"] == cell) & (table["sampler"] == FULL)]
    return Run(label, cell, read_json(folder / "protocol.json"), own, read_table(folder / ALBUM, COLUMNS))


def beats(champion: Run, challenger: Run) -> bool:
    """Whether identity is significantly higher, and prompt alignment not significantly lower."""
    _, _, frame = _contrasted([champion, challenger])
    verdicts = frame.set_index("metric")["verdict"]
    return bool(verdicts["identity"] == HIGHER and verdicts["prompt"] != LOWER)


def compare(runs: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Means, and contrasts with the first run, with Holm's correction, as text."""
    return read_findings(*_contrasted(runs), {run.label: run.label for run in runs}).tables(METRICS)


def _contrasted(runs: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The long table of all runs, its means, and its contrasts with the first run."""
    labels = [run.label for run in runs]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise InputError(f"two runs are called {', '.join(twice)}: give each a `--label` of its own")
    for run in runs[1:]:
        if run.protocol.get(HASH) != runs[0].protocol.get(HASH):
            parts = ", ".join(differences(runs[0].protocol, run.protocol)) or HASH
            raise InputError(
                f"{labels[0]} and {run.label} were evaluated by different protocols, which differ in {parts}: "
                "evaluate both by the same one"
            )
    table = pd.concat([run.table.assign(cell=run.label) for run in runs], ignore_index=True)
    pairs = [Contrast(f"{label} against {labels[0]}", label, labels[0]) for label in labels[1:]]
    return table, summary(table, METRICS), contrasts(table, pairs, METRICS)


def write_comparison(runs: Sequence[Run], out: Path) -> str:
    """Write the page of two or more runs and return its contrasts as text."""
    tables, first = compare(runs), runs[0]
    rows = {run.label: run.album[run.album["cell"] == run.cell] for run in runs}
    people = people_of(first.album, rows, first.protocol["people"])
    save_page("comparison.html.j2", out, {"runs": runs, "tables": tables, "people": people})
    return markdown(tables[-1])
