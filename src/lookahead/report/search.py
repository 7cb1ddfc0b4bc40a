"""The report of a search: its front as a figure, and one self-contained page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from lookahead.evaluation.cells import FULL
from lookahead.evaluation.contrasts import ALL
from lookahead.report.figures import ACCENT, BLUE, GREY, Trace, plot_tradeoff, save_panels
from lookahead.report.formats import Estimate, Row, Table, parameter, read_estimates, title
from lookahead.report.pages import inline_file, save_page

METRICS = ("identity", "prompt")
_OTHERS = ("state", *METRICS, "reason", "front")  # the trials' columns beside their parameters


@dataclass(frozen=True)
class SearchFindings:
    """What the page of a search shows. Cells of the frames are numbers of trials, as text."""

    title: str  # the study's name and its world
    description: str  # how trials and confirmation were evaluated: people, split, steps, seeds
    rule: str  # how a setting comes to be recommended
    verdict: str  # what is recommended, in one sentence
    trials: pd.DataFrame  # one row a trial: number, state, one column a parameter, identity, prompt, reason, front
    searched: pd.DataFrame  # rows of `contrasts.summary` of the trials' evaluations: identity and prompt
    confirmed: pd.DataFrame  # the same of the confirmation
    contrasts: pd.DataFrame  # rows of `contrasts.contrasts` of the confirmation against params.yaml's own setting
    default: int  # the trial with params.yaml's own setting
    recommended: int
    changes: Mapping[str, object]  # what adopting the recommended trial changes, by dotted name


def save_front(findings: SearchFindings, untuned: Mapping[str, float], prompt_loss: float, path: Path) -> None:
    """Draw every trial's identity against prompt alignment, with the front and the untuned adapter, into a PNG file.

    A line shows by how much (`prompt_loss`) prompt alignment may fall below the untuned adapter's.
    """

    def point(of: Mapping[str, float], note: str = "") -> tuple[Estimate, Estimate, str]:
        x, y = (Estimate(float(of[metric]), math.nan, math.nan, 0, 0) for metric in ("prompt", "identity"))
        return x, y, note

    notes = {findings.default: "params.yaml", findings.recommended: "recommended"}
    done = findings.trials[findings.trials["state"] == "complete"].sort_values("prompt").to_dict("records")
    points = {row["number"]: point(row, notes.get(row["number"], "")) for row in done}
    front = [points[row["number"]] for row in done if row["front"]]
    traces = [Trace("trials", BLUE, list(points.values()), "o"), Trace("front", ACCENT, front)]
    traces.append(Trace("untuned adapter", GREY, [point(untuned)], "s"))

    def draw(axis: Axes) -> None:
        plot_tradeoff(axis, "Every trial: up and right is better", traces)
        tolerated = untuned["prompt"] - prompt_loss
        axis.axvline(tolerated, color=GREY, linestyle=":", label="tolerated loss of prompt alignment")

    save_panels(path, 4.8, draw)


def write_search_report(findings: SearchFindings, figures: Mapping[str, Path], path: Path) -> None:
    """Write the page; `figures` are PNG files by their titles, the front first."""
    pictures = {head: inline_file(figure) for head, figure in figures.items()}
    content = {"findings": findings, "tables": search_tables(findings), "pictures": pictures}
    save_page("search.html.j2", path, content)


def search_tables(findings: SearchFindings) -> dict[str, Table]:
    """The front on the people of the search, its confirmation, its settings, and the trials that ended early."""
    trials, words = findings.trials.set_index("number"), {"params.yaml": findings.default}
    words["recommended"] = findings.recommended
    shown = trials[trials["front"].astype(bool) | (trials.index == findings.default)]
    shown = shown.sort_values("identity", ascending=False)
    labels = {n: ", ".join([str(n), *(word for word, one in words.items() if one == n)]) for n in shown.index}
    parts = {"search": findings.searched, "confirmation": findings.confirmed, "against params.yaml": findings.contrasts}
    tables = {}
    for part, frame in parts.items():
        found = read_estimates(frame, "cell")
        entries = {n: [found.get((str(n), FULL, ALL, metric)) for metric in METRICS] for n in labels}
        rows = [Row(labels[n], every, n == findings.recommended) for n, every in entries.items() if any(every)]
        tables[part] = Table(["trial", *(f"{title(metric)}, {part}" for metric in METRICS)], rows)
    settings = [Row(str(name), [parameter(v) for v in shown[name]]) for name in shown.columns if name not in _OTHERS]
    ended = trials.loc[trials["reason"] != "", ["state", "reason"]]
    tables["settings"] = Table(["parameter", *map(str, shown.index)], settings)
    rows = [Row(str(number), [state, reason]) for number, state, reason in ended.itertuples()]
    return tables | {"ended": Table(["trial", "state", "reason"], rows)}
