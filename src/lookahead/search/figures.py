"""The study's figures: front, history, importance, slices, contours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation

from lookahead.artifacts import writing
from lookahead.config import Choices
from lookahead.search.front import DEFAULT, complete, scores_of
from lookahead.search.tables import Outcome

INK, LINE, FRONT, OTHER, BASE = "#2b2f36", "#d9dce1", "#d4552a", "#3f7fbf", "#8d939c"
TITLES = {"identity": "identity (cosine, recogniser select)", "prompt": "prompt alignment"}
_COLUMNS = 4  # of slices


def save_figures(outcome: Outcome, trials: pd.DataFrame, out: Path) -> list[str]:
    """Write every figure as PNG and return their names, in the order of the report."""
    done = trials[trials["state"] == "complete"]
    figures = {"front": _front(outcome, done), "history": _history(done), "importance": _importance(outcome)}
    figures["slices"] = _slices(outcome, done)
    for one, other in outcome.search.contours:
        figures[f"contour_{one}_{other}"] = _contour(outcome, done, one, other)
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        with writing(out / f"{name}.png"):
            figure.savefig(out / f"{name}.png", dpi=140, facecolor="white", metadata={"Software": None})
    return list(figures)


def _dress(axis: Axes, title: str, x: str, y: str) -> None:
    axis.set_title(title, fontsize=10.5, loc="left", color=INK)
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(LINE)
    axis.grid(color=LINE, linewidth=0.8)
    axis.tick_params(colors=INK, labelsize=8.5, length=0)
    axis.set_axisbelow(True)


def _front(outcome: Outcome, done: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    axis = figure.subplots()
    chosen = done[done["front"]].sort_values("prompt.mean")
    axis.plot(done["prompt.mean"], done["identity.mean"], "o", color=OTHER, alpha=0.7, label="trials")
    axis.plot(chosen["prompt.mean"], chosen["identity.mean"], "o-", color=FRONT, label="front")
    identity, prompt = outcome.base.means()
    axis.plot([prompt], [identity], "s", color=BASE, label="untuned adapter")
    axis.axvline(prompt - outcome.search.prompt_loss, color=BASE, linestyle=":", label="tolerated loss of prompt")
    for _, row in done[(done["slot"] == DEFAULT) | (done["slot"] == outcome.recommended)].iterrows():
        label, offset = ("params.yaml", (6, -11)) if row["slot"] == DEFAULT else ("recommended", (6, 6))
        place = (row["prompt.mean"], row["identity.mean"])
        axis.annotate(label, place, offset, textcoords="offset points", fontsize=8.5, color=INK)
    axis.legend(edgecolor="none", fontsize=8.5)
    _dress(axis, "Every trial: up and right is better", TITLES["prompt"], TITLES["identity"])
    return figure


def _history(done: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(10.4, 3.4), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), TITLES, strict=True):
        axis.plot(done["slot"], done[f"{name}.mean"], "o", color=OTHER)
        axis.plot(done["slot"], done[f"{name}.mean"].cummax(), color=FRONT, label="best so far")
        axis.legend(edgecolor="none", fontsize=8.5)
        _dress(axis, "History", "trial", TITLES[name])
    return figure


def importances(study: optuna.Study, objective: int) -> dict[str, float]:
    """How much each parameter decides an objective (PED-ANOVA); empty where there are too few trials to say.

    Conditional parameters, which some trials lack, are not among them: a few trials would decide their share.
    """
    # Negative, because PED-ANOVA asks what decides whether a value is among the lowest.
    values = {trial.number: -scores_of(trial).means()[objective] for trial in complete(study)}
    if len(values) < 4 or len(set(values.values())) < 2:
        return {}
    shared = set.intersection(*(set(trial.params) for trial in complete(study)))
    try:
        return optuna.importance.get_param_importances(
            study, params=sorted(shared), target=lambda trial: values[trial.number]
        )
    except (ValueError, RuntimeError):  # no parameter that all trials share, or none that varies
        return {}


def _importance(outcome: Outcome) -> Figure:
    figure = Figure(figsize=(10.4, 3.6), layout="constrained")
    for number, (axis, name) in enumerate(zip(figure.subplots(1, 2), TITLES, strict=True)):
        found = importances(outcome.study, number)
        names = list(reversed(found))
        axis.barh(names, [found[key] for key in names], color=OTHER)
        if not found:
            axis.text(0.5, 0.5, "too few trials", ha="center", transform=axis.transAxes, color=BASE)
        _dress(axis, f"Importance for {name}", "share (PED-ANOVA)", "")
    return figure


def _slices(outcome: Outcome, done: pd.DataFrame) -> Figure:
    names = list(outcome.search.space)
    rows = -(-len(names) // _COLUMNS)
    figure = Figure(figsize=(2.7 * _COLUMNS, 2.2 * rows), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).flatten()
    for axis, name in zip(axes, names, strict=False):
        shown = done[done[name].notna()]
        drawn = axis.scatter(_places(outcome, shown[name], name), shown["identity.mean"], c=shown["prompt.mean"], s=16)
        _scale(outcome, axis.set_xscale, axis.set_xticks, name)
        _dress(axis, "", name, "identity")
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    figure.colorbar(drawn, ax=list(axes), label=TITLES["prompt"], shrink=0.6)
    return figure


def _places(outcome: Outcome, values: pd.Series, name: str) -> np.ndarray:
    one = outcome.search.space[name]
    return np.array([one.choices.index(v) for v in values]) if isinstance(one, Choices) else values.to_numpy(float)


def _scale(outcome: Outcome, scale: object, ticks: object, name: str) -> None:
    one = outcome.search.space[name]
    if isinstance(one, Choices):
        ticks(range(len(one.choices)), [str(choice) for choice in one.choices])  # type: ignore[operator]
    elif one.log:
        scale("log")  # type: ignore[operator]


def _contour(outcome: Outcome, done: pd.DataFrame, one: str, other: str) -> Figure:
    figure = Figure(figsize=(10.4, 3.9), layout="constrained")
    shown = done[done[one].notna() & done[other].notna()]
    x, y = _places(outcome, shown[one], one), _places(outcome, shown[other], other)
    for axis, name in zip(figure.subplots(1, 2), TITLES, strict=True):
        values = shown[f"{name}.mean"].to_numpy(float)
        if (mesh := _mesh(x, y)) is not None:
            figure.colorbar(axis.tricontourf(mesh, values, levels=12, alpha=0.8), ax=axis)
        axis.scatter(x, y, c=values, edgecolors=INK, linewidths=0.6, s=26)
        _scale(outcome, axis.set_xscale, axis.set_xticks, one)
        _scale(outcome, axis.set_yscale, axis.set_yticks, other)
        _dress(axis, name, one, other)
    return figure


def _mesh(x: np.ndarray, y: np.ndarray) -> Triangulation | None:
    """A mesh of the trials, or None where there are too few places, or all on one line."""
    try:
        return Triangulation(x, y) if len(x) >= 4 else None
    except (ValueError, RuntimeError):
        return None
