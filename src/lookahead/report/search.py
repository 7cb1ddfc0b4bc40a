"""The report of a search: its front as a figure, and one self-contained page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from lookahead.evaluation.contrasts import ALL
from lookahead.report.figures import ACCENT, BLUE, GREY, Trace, plot_tradeoff, save_panels
from lookahead.report.findings import FULL
from lookahead.report.formats import Estimate, Row, Table, parameter, read_estimates
from lookahead.report.glossary import title
from lookahead.report.pages import inline_file, save_page


@dataclass(frozen=True)
class SearchFindings:
    """What the page of a search shows. Cells of the frames are numbers of trials, as text."""

    title: str  # the study's name and its world
    description: str  # how trials and confirmation were evaluated: people, split, steps, seeds
    rule: str  # how a setting comes to be recommended
    verdict: str  # what is recommended, in one sentence
    trials: pd.DataFrame  # one row a trial: number, state, one column a parameter, identity, prompt, front, reason
    parameters: Sequence[str]  # the parameters' columns
    searched: pd.DataFrame  # rows of `contrasts.summary` of the trials' evaluations: identity and prompt
    confirmed: pd.DataFrame  # the same of the confirmation
    contrasts: pd.DataFrame  # rows of `contrasts.contrasts` of the confirmation against params.yaml's own setting
    default: int  # the trial with params.yaml's own setting
    recommended: int
    changes: Mapping[str, object]  # what adopting the recommended trial changes, by dotted name


def save_front(findings: SearchFindings, untuned: tuple[float, float], prompt_loss: float, path: Path) -> None:
    """Draw every trial's identity against prompt alignment, with the front and the untuned adapter.

    Args:
        findings: trials, and which are recommended and params.yaml's own.
        untuned: identity and prompt alignment of the untuned adapter.
        prompt_loss: the loss of prompt alignment that is tolerated.
        path: the PNG file to write.
    """
    notes = {findings.default: "params.yaml", findings.recommended: "recommended"}
    done = findings.trials[findings.trials["state"] == "complete"].sort_values("prompt")
    points = {
        number: (_point(prompt), _point(identity), notes.get(number, ""))
        for number, prompt, identity in done[["number", "prompt", "identity"]].itertuples(index=False)
    }
    front = [points[number] for number in done.loc[done["front"].astype(bool), "number"]]
    traces = [Trace("trials", BLUE, list(points.values()), "o"), Trace("front", ACCENT, front)]
    traces.append(Trace("untuned adapter", GREY, [(_point(untuned[1]), _point(untuned[0]), "")], "s"))

    def draw(axis: Axes) -> None:
        plot_tradeoff(axis, "Every trial: up and right is better", traces)
        axis.axvline(untuned[1] - prompt_loss, color=GREY, linestyle=":", label="tolerated loss of prompt alignment")

    save_panels(path, 4.8, draw)


def _point(value: float) -> Estimate:
    return Estimate(value, math.nan, math.nan, 0, 0)


def write_search_report(findings: SearchFindings, figures: Mapping[str, Path], path: Path) -> None:
    """Write the page; `figures` are PNG files by their titles, the front first.

    Figures of `optuna.visualization.matplotlib` are saved by `figures.save_axes`, so that equal ones are equal bytes.
    """
    pictures = {head: inline_file(figure) for head, figure in figures.items()}
    content = {"findings": findings, "tables": search_tables(findings), "pictures": pictures}
    save_page("search.html.j2", path, content)


def search_tables(findings: SearchFindings) -> dict[str, Table]:
    """The front on the people of the search, its confirmation, its settings, and the trials that ended early."""
    trials = findings.trials.set_index("number")
    shown = trials[trials["front"].astype(bool) | (trials.index == findings.default)]
    shown = shown.sort_values("identity", ascending=False)
    parts = {"search": findings.searched, "confirmation": findings.confirmed, "against params.yaml": findings.contrasts}
    tables, metrics = {}, ("identity", "prompt")
    for part, frame in parts.items():
        found = read_estimates(frame, "cell")
        entries = {n: [found.get((str(n), FULL, ALL, metric)) for metric in metrics] for n in shown.index}
        rows = [Row(_name(findings, n), every, n == findings.recommended) for n, every in entries.items() if any(every)]
        tables[part] = Table(["trial", *(f"{title(metric)}, {part}" for metric in metrics)], rows)
    settings = [Row(name, [parameter(value) for value in shown[name]]) for name in findings.parameters]
    failed = trials.loc[trials["reason"] != "", ["state", "reason"]]
    tables["settings"] = Table(["parameter", *map(str, shown.index)], settings)
    ended = [Row(str(number), [state, reason]) for number, state, reason in failed.itertuples()]
    return tables | {"ended": Table(["trial", "state", "reason"], ended)}


def _name(findings: SearchFindings, number: int) -> str:
    words = {"params.yaml": findings.default, "recommended": findings.recommended}
    return ", ".join([str(number), *(word for word, one in words.items() if one == number)])
