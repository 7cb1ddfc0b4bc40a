"""Axes and figures: intervals by row, identity against prompt, curves; equal inputs give PNG files of equal bytes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lookahead.artifacts import writing
from lookahead.evaluation.contrasts import NOT_SIGNIFICANT
from lookahead.report.formats import Estimate

INK, LINE, ACCENT, BLUE, GREY = "#2b2f36", "#d9dce1", "#d4552a", "#3f7fbf", "#8d939c"
# Samplers and cells of the main evaluation keep their colours, whichever of them there are.
_FIXED = {
    "full": ACCENT,
    "fast": BLUE,
    "base": INK,
    "adapter": GREY,
    "noise_only": BLUE,
    "tuned_without_kv": "#e0a13b",
    "tuned": ACCENT,
}
_PALETTE = (
    "#7a2e6b",
    "#2a9d8f",
    "#e0a13b",
    "#6a4fb3",
    "#a3b18a",
    "#c9184a",
    "#4a6fa5",
    "#b08968",
    "#588157",
    "#fb8b24",
)
_DPI, _WIDTH = 160, {1: 6.4, 2: 10.4}  # inches, by number of panels


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name: its fixed one, or the next of the palette."""
    others = [name for name in names if name not in _FIXED]
    return {name: _FIXED.get(name) or _PALETTE[others.index(name) % len(_PALETTE)] for name in names}


def style_axis(axis: Axes, title: str, x: str = "", y: str = "") -> None:
    """Give an axis its title, labels, grid and frame."""
    axis.set_title(title, fontsize=10.5, loc="left", color=INK)
    axis.set_xlabel(x, fontsize=9)
    axis.set_ylabel(y, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(LINE)
    axis.grid(color=LINE, linewidth=0.8)
    axis.tick_params(colors=INK, labelsize=8.5, length=0)
    axis.set_axisbelow(True)


@dataclass(frozen=True)
class Series:
    """Estimates of one colour, one for each row of `plot_intervals`; None is left out."""

    label: str
    colour: str
    values: Sequence[Estimate | None]


def plot_intervals(axis: Axes, title: str, rows: Sequence[str], series: Sequence[Series]) -> None:
    """Means with 95 % intervals, rows from top to bottom; contrasts that are not significant are hollow."""
    offsets = np.linspace(-0.28, 0.28, len(series)) if len(series) > 1 else [0.0]
    for offset, one in zip(offsets, series, strict=True):
        for row, value in enumerate(one.values):
            if value is None or math.isnan(value.mean):
                continue
            _segment(axis, [value.low, value.high], [row + offset] * 2, one.colour)
            inside = "white" if value.verdict == NOT_SIGNIFICANT else one.colour
            axis.plot([value.mean], [row + offset], "o", color=one.colour, markerfacecolor=inside, markersize=5.5)
        axis.plot([], [], "o-", color=one.colour, markersize=5.5, label=one.label)
    if any(value is not None and value.verdict for one in series for value in one.values):
        axis.axvline(0, color=INK, linewidth=1)
        axis.plot([], [], "o", color=GREY, markerfacecolor="white", markersize=5.5, label=NOT_SIGNIFICANT)
    axis.set_yticks(range(len(rows)), [textwrap.fill(row, 36) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    low, high = axis.get_xlim()
    axis.set_xlim(min(low, high - 0.002), max(high, low + 0.002))  # where all numbers are equal
    style_axis(axis, title)
    axis.grid(visible=False, axis="y")


@dataclass(frozen=True)
class Trace:
    """Points of one colour, joined in their order: prompt alignment, identity, and a note; None is left out."""

    label: str
    colour: str
    points: Sequence[tuple[Estimate | None, Estimate | None, str]]


def plot_tradeoff(axis: Axes, title: str, traces: Sequence[Trace]) -> None:
    """Identity against prompt alignment with 95 % intervals."""
    for trace in traces:
        points = [(x, y, note) for x, y, note in trace.points if x is not None and y is not None]
        for prompt, identity, note in points:
            _segment(axis, [prompt.low, prompt.high], [identity.mean] * 2, trace.colour, 0.55)
            _segment(axis, [prompt.mean] * 2, [identity.low, identity.high], trace.colour, 0.55)
            place = (prompt.mean, identity.mean)
            axis.annotate(note, place, (5, 4), textcoords="offset points", fontsize=8, color=trace.colour)
        x, y = [prompt.mean for prompt, _, _ in points], [identity.mean for _, identity, _ in points]
        axis.plot(x, y, "o-", color=trace.colour, markersize=6, linewidth=1.2, label=trace.label)
    axis.margins(0.15)
    style_axis(axis, title, "prompt alignment (share with everything asked for)", "identity (cosine)")


def _segment(axis: Axes, x: list[float], y: list[float], colour: str, alpha: float = 1.0) -> None:
    axis.plot(x, y, color=colour, linewidth=1.8, alpha=alpha, solid_capstyle="round")


def plot_previews(axis: Axes, title: str, previews: pd.DataFrame, column: str) -> None:
    """A column of `previews.csv` over the timestep, one curve a strength of the fast child."""
    scales = sorted(previews["scale"].unique())
    for number, scale in enumerate(scales):
        rows = previews[previews["scale"] == scale].sort_values("t")
        colour = colormaps["viridis"](0.9 * (1 - number / max(1, len(scales) - 1)))
        label = "base: naive x0" if scale == 0 else f"LCM child at alpha {scale:g}"
        axis.plot(rows["t"], rows[column], "o-", color=colour, markersize=4, label=label)
        if f"{column}_low" in rows and scale in (scales[0], scales[-1]):
            axis.fill_between(
                rows["t"], rows[f"{column}_low"], rows[f"{column}_high"], color=colour, alpha=0.15, linewidth=0
            )
    style_axis(axis, title, "timestep t (999: pure noise)")


def save_panels(path: Path, height: float, *panels: Callable[[Axes], None], share_y: bool = False) -> None:
    """Draw panels in a row, with one legend below them, and write the figure.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    figure = Figure(figsize=(_WIDTH[min(len(panels), 2)], height), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=share_y, squeeze=False)[0]
    entries: dict[str, Any] = {}
    for axis, panel in zip(axes, panels, strict=True):
        panel(axis)
        handles, labels = axis.get_legend_handles_labels()
        entries = dict(zip(labels, handles, strict=True)) | entries
    if entries:
        figure.legend(
            entries.values(), entries.keys(), loc="outside lower center", ncols=5, edgecolor="none", fontsize=8.5
        )
    save_figure(figure, path)


def save_axes(axes: Any, path: Path) -> None:
    """Write the figure of one or more axes, such as those of `optuna.visualization.matplotlib`, and close it.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    from matplotlib import pyplot

    figure = np.ravel(axes)[0].figure
    save_figure(figure, path)
    pyplot.close(figure)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; equal figures are equal bytes.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DPI, facecolor="white", metadata={"Software": None})
