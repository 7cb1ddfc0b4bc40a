"""Means and contrasts of cells as figures; equal inputs give PNG files of equal bytes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from cycler import cycler
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lookahead.artifacts import writing
from lookahead.evaluation.contrasts import NOT_SIGNIFICANT
from lookahead.report.formats import Estimate, Findings, title

_LINE = "#d9dce1"
_STYLE: dict[Any, Any] = {
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.labelsize": 9,
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _LINE,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": _LINE,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.constrained_layout.use": True,
    "lines.markersize": 5,
    "legend.edgecolor": "none",
    "axes.prop_cycle": cycler(color=[*colormaps["tab10"].colors, *colormaps["Dark2"].colors]),  # type: ignore[attr-defined]
}
_ONE, _WIDE = 6.4, 10.4  # inches: the width with one panel, and with more
Point = tuple[Estimate, Estimate, str]  # prompt alignment, identity, and a note at the marker


def plot_intervals(axis: Axes, head: str, rows: Sequence[str], series: Mapping[str, Sequence[Estimate | None]]) -> None:
    """Means with 95 % intervals, rows from top to bottom; contrasts that are not significant are hollow."""
    offsets = np.linspace(-0.28, 0.28, len(series)) if len(series) > 1 else [0.0]
    for number, (offset, (label, values)) in enumerate(zip(offsets, series.items(), strict=True)):
        colour = f"C{number}"
        for row, value in enumerate(values):
            if value is not None and not math.isnan(value.mean):
                inside = "white" if value.verdict == NOT_SIGNIFICANT else colour
                axis.plot([value.low, value.high], [row + offset] * 2, color=colour)
                axis.plot([value.mean], [row + offset], "o", color=colour, markerfacecolor=inside)
        axis.plot([], [], "o-", color=colour, label=label)
    if any(value is not None and value.verdict for values in series.values() for value in values):
        axis.axvline(0, color="black", linewidth=1)
        axis.plot([], [], "o", color="grey", markerfacecolor="white", label=NOT_SIGNIFICANT)
    axis.set_yticks(range(len(rows)), [textwrap.fill(row, 36) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_title(head)
    axis.grid(visible=False, axis="y")


def plot_tradeoff(axis: Axes, head: str, lines: Mapping[str, Sequence[Point]]) -> None:
    """Identity against prompt alignment with 95 % intervals; the points of a line are joined."""
    for number, (label, points) in enumerate(lines.items()):
        colour = f"C{number}"
        for x, y, note in points:
            for ends in (([x.low, x.high], [y.mean] * 2), ([x.mean] * 2, [y.low, y.high])):
                axis.plot(*ends, color=colour, alpha=0.5)
            axis.annotate(note, (x.mean, y.mean), (5, 4), textcoords="offset points", color=colour)
        axis.plot([x.mean for x, _, _ in points], [y.mean for _, y, _ in points], "o-", color=colour, label=label)
    label_tradeoff(axis, head)


def label_tradeoff(axis: Axes, head: str) -> None:
    """Title and labels of identity against prompt alignment."""
    axis.margins(0.15)
    axis.set(title=head, xlabel="prompt alignment (share with everything asked for)", ylabel="identity (cosine)")


def plot_curves(axis: Axes, head: str, x: str, curves: pd.DataFrame) -> None:
    """Each column of a frame over the column `x`."""
    curves.plot(x, ax=axis, title=head, marker="o", colormap="cool", legend=False)


def save_panels(path: Path, height: float, *panels: Callable[[Axes], None], share_y: bool = False) -> None:
    """Draw panels in a row, with one legend below them, and write the figure."""
    legend: dict[str, Any] = {}
    with rc_context(_STYLE):
        figure = Figure(figsize=(_ONE if len(panels) == 1 else _WIDE, height))
        axes = figure.subplots(1, len(panels), sharey=share_y, squeeze=False)[0]
        for axis, panel in zip(axes, panels, strict=True):
            panel(axis)
            handles, labels = axis.get_legend_handles_labels()
            legend = dict(zip(labels, handles, strict=True)) | legend
        columns = 3 if len(panels) == 1 else 5
        figure.legend(list(legend.values()), list(legend), loc="outside lower center", ncols=columns)
        save_figure(figure, path)


def save_axes(axes: Any, path: Path) -> None:
    """Write the figure of one or more axes, such as those of `optuna.visualization.matplotlib`, and close it."""
    from matplotlib import pyplot

    figure = np.ravel(axes)[0].figure
    save_figure(figure, path)
    pyplot.close(figure)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG; equal figures are equal bytes."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160, facecolor="white", metadata={"Software": None})


def save_contrasts(found: Findings, samplers: Iterable[str], path: Path) -> None:
    """Draw every contrast of identity and of prompt alignment, a colour a sampler."""
    panels = []
    for metric in ("identity", "prompt"):
        series = {sampler: found.of(found.pairs, metric, sampler) for sampler in samplers}
        head = f"Contrasts of {title(metric)}, 95 % intervals"
        panels.append(partial(plot_intervals, head=head, rows=list(found.pairs.values()), series=series))
    save_panels(path, 0.45 * len(found.pairs) + 1.4, *panels, share_y=True)


def save_tradeoff(
    found: Findings, samplers: Iterable[str], path: Path, lines: Mapping[str, tuple[str, str]] | None = None
) -> None:
    """Draw identity against prompt alignment of every cell, a panel a sampler.

    `lines` has for each cell the label of the line that it lies on, and the note at its marker; None is a line a cell.
    """
    lines, panels = lines or {cell: (label, "") for cell, label in found.cells.items()}, []
    for sampler in samplers:
        points: dict[str, list[Point]] = {}
        values = (found.of(found.cells, metric, sampler) for metric in ("prompt", "identity"))
        for cell, prompt, identity in zip(found.cells, *values, strict=True):
            line, note = lines[cell]
            points.setdefault(line, []).extend([(prompt, identity, note)] if prompt and identity else [])
        panels.append(partial(plot_tradeoff, head=f"Up and right is better: {sampler}", lines=points))
    save_panels(path, 4.6, *panels, share_y=True)
