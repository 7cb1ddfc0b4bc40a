"""The report of a search: its front as a figure, and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from lookahead.evaluation.contrasts import ALL
from lookahead.report.figures import ACCENT, BLUE, GREY, INK, save_panels, style_axis
from lookahead.report.formats import FULL, Row, Table, parameter, read_contrasts, read_summary
from lookahead.report.pages import inline_file, save_page


@dataclass(frozen=True)
class SearchFindings:
    """What the page of a search shows. Cells of the frames are numbers of trials, as text.

    Args:
        title: the study's name and its world.
        description: how trials and confirmation were evaluated: people, split, steps, seeds.
        rule: how a setting comes to be recommended.
        verdict: what is recommended, in one sentence.
        trials: one row a trial: number, state, one column a parameter, identity, prompt, front (bool), reason.
        parameters: the names of the parameters' columns.
        searched: rows of `contrasts.summary` of the trials' evaluations; metrics are identity and prompt.
        confirmed: the same of the confirmation.
        contrasts: rows of `contrasts.contrasts` of the confirmation against params.yaml's own setting.
        default: the number of the trial with params.yaml's own setting.
        recommended: the number of the recommended trial.
        changes: what adopting it changes in params.yaml, by dotted name.
    """

    title: str
    description: str
    rule: str
    verdict: str
    trials: pd.DataFrame
    parameters: Sequence[str]
    searched: pd.DataFrame
    confirmed: pd.DataFrame
    contrasts: pd.DataFrame
    default: int
    recommended: int
    changes: Mapping[str, object]


def save_front(findings: SearchFindings, untuned: tuple[float, float], prompt_loss: float, path: Path) -> None:
    """Draw every trial's identity against prompt alignment, with the front and the untuned adapter.

    Args:
        findings: trials, and which are recommended and params.yaml's own.
        untuned: identity and prompt alignment of the untuned adapter.
        prompt_loss: the loss of prompt alignment that is tolerated.
        path: the PNG file to write.
    """
    done = findings.trials[findings.trials["state"] == "complete"]
    front = done[done["front"].astype(bool)].sort_values("prompt")
    named = {findings.recommended: ("recommended", (6, 6)), findings.default: ("params.yaml", (6, -11))}

    def draw(axis: Axes) -> None:
        axis.plot(done["prompt"], done["identity"], "o", color=BLUE, alpha=0.7, label="trials")
        axis.plot(front["prompt"], front["identity"], "o-", color=ACCENT, label="front")
        axis.plot([untuned[1]], [untuned[0]], "s", color=GREY, label="untuned adapter")
        axis.axvline(untuned[1] - prompt_loss, color=GREY, linestyle=":", label="tolerated loss of prompt alignment")
        for number, prompt, identity in done[["number", "prompt", "identity"]].itertuples(index=False):
            if number in named:
                label, offset = named[number]
                axis.annotate(label, (prompt, identity), offset, textcoords="offset points", fontsize=8.5, color=INK)
        title = "Every trial: up and right is better"
        style_axis(axis, title, "prompt alignment", "identity (cosine, recogniser select)")

    save_panels(path, 4.8, draw)


def write_search_report(findings: SearchFindings, figures: Mapping[str, Path], path: Path) -> None:
    """Write the page; `figures` are PNG files by their titles, the front first.

    Figures of `optuna.visualization.matplotlib` are saved by `figures.save_axes`, so that equal ones are equal bytes.
    """
    pictures = {title: inline_file(figure) for title, figure in figures.items()}
    content = {"findings": findings, "tables": search_tables(findings), "pictures": pictures}
    save_page("search.html.j2", path, content)


def search_tables(findings: SearchFindings) -> dict[str, Table]:
    """The front with its confirmation, its settings, and the trials that ended early."""
    trials = findings.trials.set_index("number")
    shown = trials[trials["front"].astype(bool) | (trials.index == findings.default)]
    shown = shown.sort_values("identity", ascending=False)
    changes = read_contrasts(findings.contrasts.assign(contrast=findings.contrasts["cell"]))
    parts = {"search": read_summary(findings.searched), "confirmation": read_summary(findings.confirmed)}
    parts["against params.yaml"] = changes
    wanted = [(part, metric) for part in parts for metric in ("identity", "prompt")]
    rows = [
        Row(
            _name(findings, number),
            [parts[part].get((str(number), FULL, ALL, metric)) for part, metric in wanted],
            number == findings.recommended,
        )
        for number in shown.index
    ]
    settings = [Row(name, [parameter(value) for value in shown[name]]) for name in findings.parameters]
    failed = trials.loc[trials["reason"] != "", ["state", "reason"]]
    return {
        "front": Table(["trial", *(f"{metric}, {part}" for part, metric in wanted)], rows),
        "settings": Table(["parameter", *map(str, shown.index)], settings),
        "ended": Table(["trial", "state", "reason"], [Row(str(one), [s, r]) for one, s, r in failed.itertuples()]),
    }


def _name(findings: SearchFindings, number: int) -> str:
    said = {findings.default: "params.yaml"}
    names = [str(number), said.get(number, ""), "recommended" if number == findings.recommended else ""]
    return ", ".join(name for name in names if name)
