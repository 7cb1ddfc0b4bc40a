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
from lookahead.evaluation.contrasts import ALL, Contrast, contrasts, summary
from lookahead.report.figures import read_findings
from lookahead.report.formats import Table
from lookahead.report.pages import ALBUM, REFERENCE, SHOT, inline_thumbnail, read_album, save_page

FILES = ("protocol.json", "per_image.parquet", ALBUM)  # what a comparison reads of an evaluation
METRICS = ("identity", "prompt", "detected")
KEYS = ("cell", "sampler", "training_seed", "person", "style")


@dataclass(frozen=True)
class Run:
    """One cell of one evaluation: its label in the comparison, its protocol, its rows and its pictures."""

    label: str
    cell: str
    protocol: Mapping[str, Any]
    table: pd.DataFrame
    album: pd.DataFrame


def read_run(label: str, folder: Path, cell: str) -> Run:
    """Read one cell of the folder of an evaluation."""
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(f"{folder} is no evaluation: it has no {name}; run `lookahead evaluate` again")
    path = folder / "per_image.parquet"
    try:
        table = pd.read_parquet(path, columns=[*KEYS, *METRICS])
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is damaged or old ({error!s:.120}): run `lookahead evaluate` again") from None
    if cell not in (known := sorted(table["cell"].unique())):
        raise InputError(f"{folder} has no method {cell!r}: it has {', '.join(known)}")
    own = table[(table["cell"] == cell) & (table["sampler"] == FULL)]
    return Run(label, cell, read_json(folder / "protocol.json"), own, read_album(folder / ALBUM))


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that were not evaluated alike, or that have one label."""
    first, labels = runs[0], [run.label for run in runs]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise InputError(f"two runs are called {', '.join(twice)}: give each a `--label` of its own")
    for run in runs[1:]:
        if run.protocol.get(HASH) != first.protocol.get(HASH):
            parts = ", ".join(differences(first.protocol, run.protocol)) or HASH
            raise InputError(
                f"{first.label} and {run.label} were evaluated by different protocols, which differ in {parts}: "
                "evaluate both by the same one"
            )


def compare(runs: Sequence[Run]) -> list[Table]:
    """Means, and contrasts with the first run, over all prompts and by group, with Holm's correction."""
    check_comparable(runs)
    groups = runs[0].protocol["groups"]
    styles = {style: name for name, own in groups.items() for style in own}
    rows = pd.concat([run.table.assign(cell=run.label) for run in runs], ignore_index=True)
    table = pd.concat([rows.assign(prompts=ALL), rows.assign(prompts=rows["style"].map(styles))], ignore_index=True)
    first, *others = labels = [run.label for run in runs]
    pairs = [Contrast(label, label, first) for label in others]
    frames = summary(table, METRICS, "prompts"), contrasts(table, pairs, METRICS, "prompts")
    found = read_findings(table, *frames, {label: label for label in labels}, {})
    return found.tables(METRICS, groups=(ALL, *groups))


def write_comparison(runs: Sequence[Run], out: Path) -> str:
    """Write the page of two or more runs and return its contrasts as text."""
    tables = compare(runs)
    content = {"runs": runs, "tables": tables, "people": _people(runs), "hash": runs[0].protocol[HASH]}
    save_page("comparison.html.j2", out, content)
    return tables[-1].markdown()


def _people(runs: Sequence[Run]) -> list[dict[str, object]]:
    """Every person that all albums show: the name, the reference, and a line a prompt with one picture a run."""
    references = runs[0].album[runs[0].album["cell"] == REFERENCE].set_index("person")["image"]
    albums = [run.album[run.album["cell"] == run.cell].set_index(SHOT)["image"] for run in runs]
    people: dict[int, dict[str, Any]] = {}
    for shot in (shot for shot in albums[0].index if all(shot in album.index for album in albums)):
        person, style, scene, _ = shot
        if person not in people:
            shown = {"name": runs[0].protocol["people"][person], "reference": inline_thumbnail(references[person])}
            people[person] = shown | {"lines": []}
        people[person]["lines"].append((f"{style}, {scene}", [inline_thumbnail(album[shot]) for album in albums]))
    return list(people.values())
