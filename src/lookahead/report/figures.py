"""The report's plots: identity against prompt, differences with their intervals, identity by style and scene."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lookahead.artifacts import writing
from lookahead.evaluation.methods import METHODS, comparable, present
from lookahead.evaluation.metrics import Metrics
from lookahead.evaluation.statistics import Interval

INK, LINE = "#2b2f36", "#d9dce1"
_FOREST = {
    "identity": "identity",
    "identity_select": "identity, recogniser select",
    "identity_loss": "identity, the loss's recogniser",
    "prompt": "prompt alignment",
    "detection_rate": "faces found",
}
_DPI = 160


def save_overview(metrics: Metrics, path: Path) -> None:
    """Identity against prompt alignment of each method, and beside it the paired differences, with 95 % intervals."""
    figure = Figure(figsize=(10.4, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _trade(left, metrics)
    _forest(right, metrics)
    save_figure(figure, path)


def save_breakdown(by_style: dict[str, Metrics], by_scene: dict[str, Metrics], path: Path) -> None:
    """Identity of each method in each style and in each scene, with 95 % intervals."""
    figure = Figure(figsize=(10.4, 3.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, groups, title in zip(axes, (by_style, by_scene), ("by style", "by scene"), strict=True):
        methods = present(next(iter(groups.values())))
        for offset, method in zip(np.linspace(-0.2, 0.2, len(methods)), methods, strict=True):
            places = [i + offset for i in range(len(groups))]
            _bars(axis, places, [m[method]["identity"] for m in groups.values()], method)
        axis.set_xticks(range(len(groups)), list(groups))
        dress(axis, f"Identity {title}")
        axis.grid(axis="y", color=LINE, linewidth=0.8)
    axes[0].legend(edgecolor="none", framealpha=1, fontsize=8.5)
    save_figure(figure, path)


def save_preview_curves(table: pd.DataFrame, path: Path) -> None:
    """Recognisability and error of one-step previews over the timestep, one curve a strength of the fast child."""
    figure = Figure(figsize=(10.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    scales = sorted(table["scale"].unique())
    for number, scale in enumerate(scales):
        rows = table[table["scale"] == scale].sort_values("t")
        colour = colormaps["viridis"](0.9 * (1 - number / max(1, len(scales) - 1)))
        label = "base: naive x0" if scale == 0 else f"LCM child at α = {scale:g}"
        left.plot(rows["t"], rows["identity"], "o-", color=colour, markersize=4, label=label)
        if scale in (scales[0], scales[-1]):
            left.fill_between(rows["t"], rows["identity_low"], rows["identity_high"], color=colour, alpha=0.15, lw=0)
        right.plot(rows["t"], rows["error"], "o-", color=colour, markersize=4, label=label)
    for axis, title in ((left, "Recognised as the reference (cosine)"), (right, "Squared error to the noised photo")):
        axis.set_xlabel("timestep t (999: pure noise)", fontsize=9)
        axis.grid(color=LINE, linewidth=0.8)
        dress(axis, title)
    right.legend(edgecolor="none", framealpha=1, fontsize=8.5)
    save_figure(figure, path)


def _bars(axis: Axes, places: Sequence[float], values: list[Interval], method: str) -> None:
    colour, label = METHODS[method].colour, METHODS[method].name
    for place, value in zip(places, values, strict=True):
        _, low, high = value.measured()
        _line(axis, [place, place], [low, high], colour)
    axis.plot(places, [value.measured()[0] for value in values], "o", color=colour, markersize=5.5, label=label)


def _trade(axis: Axes, metrics: Metrics) -> None:
    for method in present(metrics):
        colour = METHODS[method].colour
        prompt, prompt_low, prompt_high = metrics[method]["prompt"].measured()
        identity, identity_low, identity_high = metrics[method]["identity"].measured()
        _line(axis, [prompt_low, prompt_high], [identity, identity], colour)
        _line(axis, [prompt, prompt], [identity_low, identity_high], colour)
        axis.plot([prompt], [identity], "o", color=colour, markersize=7, label=METHODS[method].name)
    axis.set_xlabel("prompt alignment (share with style and scene right)", fontsize=9)
    axis.set_ylabel("identity (cosine)", fontsize=9)
    axis.grid(color=LINE, linewidth=0.8)
    axis.margins(0.25)
    axis.legend(edgecolor="none", framealpha=1, fontsize=8.5)
    dress(axis, "Identity against prompt: up and right is better")


def _forest(axis: Axes, metrics: Metrics) -> None:
    rows = list(reversed(_FOREST))
    shown = comparable(metrics)
    for offset, (group, one) in zip(np.linspace(-0.14, 0.14, len(shown)), shown.items(), strict=True):
        places = [row + offset for row in range(len(rows))]
        values = [metrics[group][metric].measured() for metric in rows]
        for place, (_, low, high) in zip(places, values, strict=True):
            _line(axis, [low, high], [place, place], one.colour)
        for place, (mean, low, high) in zip(places, values, strict=True):
            inside = "white" if low <= 0 <= high else one.colour  # hollow: no difference
            axis.plot([mean], [place], "o", color=one.colour, markerfacecolor=inside, markersize=5.5)
        axis.plot([], [], "o-", color=one.colour, markersize=5.5, label=one.name)
    axis.axvline(0, color=INK, linewidth=1)
    axis.set_yticks(range(len(rows)), [_FOREST[metric] for metric in rows])
    axis.set_ylim(-0.5, len(rows) - 0.25 + 0.5 * -(-len(shown) // 2))  # room for the legend above the first row
    axis.grid(axis="x", color=LINE, linewidth=0.8)
    axis.legend(edgecolor="none", framealpha=1, fontsize=8.5, loc="upper right", ncols=2)
    dress(axis, "Paired differences, 95 % intervals (hollow: no difference)")


def _line(axis: Axes, x: list[float], y: list[float], colour: str) -> None:
    axis.plot(x, y, color=colour, linewidth=2.2, solid_capstyle="round")


def dress(axis: Axes, title: str) -> None:
    """Give a plot its title and the frame that all plots have."""
    axis.set_title(title, fontsize=10.5, loc="left", color=INK)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(LINE)
    axis.tick_params(colors=INK, labelsize=8.5, length=0)
    axis.set_axisbelow(True)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; equal figures are equal bytes.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DPI, facecolor="white", metadata={"Software": None})
