"""Means and contrasts of some cells, as tables and as figures; equal inputs give PNG files of equal bytes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lookahead.artifacts import writing
from lookahead.evaluation.cells import FULL
from lookahead.evaluation.contrasts import ALL, NOT_SIGNIFICANT
from lookahead.report.formats import Estimate, Estimates, Row, Table, read_estimates, title

INK, LINE, ACCENT, BLUE, GREY = "#2b2f36", "#d9dce1", "#d4552a", "#3f7fbf", "#8d939c"
# Samplers and cells of the main evaluation keep their colours, whichever of them there are.
_FIXED = {"full": ACCENT, "fast": BLUE, "base": INK, "adapter": GREY, "noise_only": BLUE, "tuned": ACCENT}
_FIXED |= {"tuned_without_kv": "#e0a13b", "steered": "#7a2e6b"}
_PALETTE = [
    *("#7a2e6b", "#2a9d8f", "#e0a13b", "#6a4fb3", "#a3b18a"),
    *("#c9184a", "#4a6fa5", "#b08968", "#588157", "#fb8b24"),
]
_DPI, _ONE, _WIDE = 160, 6.4, 10.4  # inches: the width with one panel, and with more


def colours(names: Sequence[str]) -> dict[str, str]:
    """A colour for each name: its fixed one, or the next of the palette."""
    others = [name for name in names if name not in _FIXED]
    return {name: _FIXED.get(name) or _PALETTE[others.index(name) % len(_PALETTE)] for name in names}


def style_axis(axis: Axes, head: str, x: str = "", y: str = "") -> None:
    """Give an axis its title, labels, grid and frame."""
    axis.set_title(head, fontsize=10.5, loc="left", color=INK)
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


def plot_intervals(axis: Axes, head: str, rows: Sequence[str], series: Sequence[Series]) -> None:
    """Means with 95 % intervals, rows from top to bottom; contrasts that are not significant are hollow."""
    offsets = np.linspace(-0.28, 0.28, len(series)) if len(series) > 1 else [0.0]
    for offset, one in zip(offsets, series, strict=True):
        for row, value in enumerate(one.values):
            if value is not None and not math.isnan(value.mean):
                inside = "white" if value.verdict == NOT_SIGNIFICANT else one.colour
                axis.plot([value.low, value.high], [row + offset] * 2, color=one.colour, linewidth=1.8)
                axis.plot([value.mean], [row + offset], "o", color=one.colour, markerfacecolor=inside, markersize=5.5)
        axis.plot([], [], "o-", color=one.colour, markersize=5.5, label=one.label)
    if any(value is not None and value.verdict for one in series for value in one.values):
        axis.axvline(0, color=INK, linewidth=1)
        axis.plot([], [], "o", color=GREY, markerfacecolor="white", markersize=5.5, label=NOT_SIGNIFICANT)
    axis.set_yticks(range(len(rows)), [textwrap.fill(row, 36) for row in rows])
    axis.set_ylim(len(rows) - 0.5, -0.5)
    low, high = axis.get_xlim()
    axis.set_xlim(min(low, high - 0.002), max(high, low + 0.002))  # where all numbers are equal
    style_axis(axis, head)
    axis.grid(visible=False, axis="y")


@dataclass(frozen=True)
class Trace:
    """Points of one colour: prompt alignment, identity, and a note at the marker; None is left out."""

    label: str
    colour: str
    points: Sequence[tuple[Estimate | None, Estimate | None, str]]
    style: str = "o-"


def plot_tradeoff(axis: Axes, head: str, traces: Sequence[Trace]) -> None:
    """Identity against prompt alignment with 95 % intervals."""
    for trace in traces:
        points = [(x, y, note) for x, y, note in trace.points if x is not None and y is not None]
        for x, y, note in points:
            for ends in (([x.low, x.high], [y.mean] * 2), ([x.mean] * 2, [y.low, y.high])):
                axis.plot(*ends, color=trace.colour, linewidth=1.4, alpha=0.5)
            axis.annotate(note, (x.mean, y.mean), (5, 4), textcoords="offset points", fontsize=8, color=trace.colour)
        means = [x.mean for x, _, _ in points], [y.mean for _, y, _ in points]
        axis.plot(*means, trace.style, color=trace.colour, markersize=6, linewidth=1.2, label=trace.label)
    axis.margins(0.15)
    style_axis(axis, head, "prompt alignment (share with everything asked for)", "identity (cosine)")


def plot_previews(axis: Axes, head: str, previews: pd.DataFrame, column: str) -> None:
    """A column of `previews.csv` over the timestep, one curve a strength of the fast child, some with their bands."""
    scales = sorted(previews["scale"].unique())
    for number, scale in enumerate(scales):
        rows = previews[previews["scale"] == scale].sort_values("t")
        colour = colormaps["viridis"](0.9 * (1 - number / max(1, len(scales) - 1)))
        label = "base: naive x0" if scale == 0 else f"LCM child at alpha {scale:g}"
        axis.plot(rows["t"], rows[column], "o-", color=colour, markersize=4, label=label)
        if f"{column}_low" in rows and scale in (scales[0], scales[-1]):
            band = rows[f"{column}_low"], rows[f"{column}_high"]
            axis.fill_between(rows["t"], *band, color=colour, alpha=0.15, linewidth=0)
    style_axis(axis, head, "timestep t (999: pure noise)")


def save_panels(path: Path, height: float, *panels: Callable[[Axes], None], share_y: bool = False) -> None:
    """Draw panels in a row, with one legend below them, and write the figure."""
    figure = Figure(figsize=(_ONE if len(panels) == 1 else _WIDE, height), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=share_y, squeeze=False)[0]
    legend: dict[str, Any] = {}
    for axis, panel in zip(axes, panels, strict=True):
        panel(axis)
        handles, labels = axis.get_legend_handles_labels()
        legend = dict(zip(labels, handles, strict=True)) | legend
    handles, labels = list(legend.values()), list(legend)
    columns = 3 if len(panels) == 1 else 5
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, edgecolor="none", fontsize=8.5)
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
        figure.savefig(path, dpi=_DPI, facecolor="white", metadata={"Software": None})


@dataclass(frozen=True)
class Findings:
    """Estimates by cell and by contrast, the labels of both in the order of every table, and the samplers' labels."""

    means: Estimates
    contrasts: Estimates
    cells: Mapping[str, str]
    pairs: Mapping[str, str]
    samplers: Mapping[str, str]

    def of_cells(self, metric: str, sampler: str = FULL, group: str = ALL) -> list[Estimate | None]:
        """A metric of every cell."""
        return [self.means.get((cell, sampler, group, metric)) for cell in self.cells]

    def of_pairs(self, metric: str, sampler: str = FULL, group: str = ALL) -> list[Estimate | None]:
        """A metric of every contrast."""
        return [self.contrasts.get((pair, sampler, group, metric)) for pair in self.pairs]

    def tables(
        self, metrics: Sequence[str], sampler: str = FULL, groups: Sequence[str] = (ALL,), chosen: str = ""
    ) -> list[Table]:
        """Means, a row a cell and group, and contrasts likewise; a column a metric. The cell `chosen` is emphasised."""

        def rows(labels: Mapping[str, str], estimates: Estimates) -> Iterator[Row]:
            for name, label in labels.items():
                for group in groups:
                    entries = [estimates.get((name, sampler, group, metric)) for metric in metrics]
                    if any(entries):
                        yield Row(label if len(groups) == 1 else f"{label}, {group}", entries, name == chosen)

        heads = ["", *map(title, metrics)]
        parts = ((self.cells, self.means), (self.pairs, self.contrasts))
        return [Table(heads, list(rows(labels, estimates))) for labels, estimates in parts]


def read_findings(
    table: pd.DataFrame,
    summary: pd.DataFrame,
    contrasts: pd.DataFrame,
    labels: Mapping[str, str],
    samplers: Mapping[str, str],
) -> Findings:
    """The estimates of the long table's cells that have labels; a training seed below 0 means that none was trained."""
    cells = {cell: label for cell, label in labels.items() if cell in set(table["cell"])}
    rows = contrasts.drop_duplicates("contrast")[["contrast", "cell", "baseline"]]
    pairs = {pair: f"{labels[cell]} against {labels[baseline]}" for pair, cell, baseline in rows.to_numpy()}
    untrained = set(table.loc[table["training_seed"] < 0, "cell"])
    means, changes = read_estimates(summary, "cell", untrained), read_estimates(contrasts, "contrast")
    return Findings(means, changes, cells, pairs, samplers)


def save_contrasts(found: Findings, path: Path) -> None:
    """Draw every contrast of identity and of prompt alignment, a colour a sampler."""
    colour, panels = colours(list(found.samplers)), []
    for metric in ("identity", "prompt"):
        series = [Series(label, colour[s], found.of_pairs(metric, s)) for s, label in found.samplers.items()]
        head = f"Contrasts of {title(metric)}, 95 % intervals"
        panels.append(partial(plot_intervals, head=head, rows=list(found.pairs.values()), series=series))
    save_panels(path, 0.45 * len(found.pairs) + 1.4, *panels, share_y=True)


def save_tradeoff(found: Findings, path: Path, lines: Mapping[str, tuple[str, str]] | None = None) -> None:
    """Draw identity against prompt alignment of every cell, a panel a sampler.

    `lines` has for each cell the label of its line, whose cells are joined, and what stands at its marker.
    """
    lines = lines or {cell: (label, "") for cell, label in found.cells.items()}
    first = {lines[cell][0]: cell for cell in reversed(list(found.cells))}  # gives a line its colour
    colour, panels = colours([cell for cell in found.cells if cell in first.values()]), []
    for sampler, label in found.samplers.items():
        points: dict[str, list[tuple[Estimate | None, Estimate | None, str]]] = {}
        values = zip(found.of_cells("prompt", sampler), found.of_cells("identity", sampler), strict=True)
        for cell, (prompt, identity) in zip(found.cells, values, strict=True):
            points.setdefault(lines[cell][0], []).append((prompt, identity, lines[cell][1]))
        traces = [Trace(line, colour[first[line]], every) for line, every in points.items()]
        panels.append(partial(plot_tradeoff, head=f"Up and right is better: {label}", traces=traces))
    save_panels(path, 4.6, *panels, share_y=True)
