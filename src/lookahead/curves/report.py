"""What people see of the curves: a figure, a table, one HTML page."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lookahead.artifacts import write_json
from lookahead.config import Curves, Evaluate
from lookahead.curves.cell import METHODS as SHOWN
from lookahead.curves.table import Findings, as_json, find, read_cells, save_csv
from lookahead.evaluation.methods import BASE, METHODS
from lookahead.evaluation.statistics import Interval
from lookahead.report.figures import INK, LINE, dress, save_figure
from lookahead.report.pages import inline_png, save_page

Trace = list[tuple[float, dict[str, Interval]]]


def write_curves(study: Curves, settings: Evaluate, cells: Path, out: Path) -> None:
    """Write `metrics.json`, `curves.csv`, `curves.png` and `report.html` into `out`.

    Args:
        study: strengths and people.
        settings: the world's evaluation, for the bootstrap.
        cells: the folder with one folder a cell.
        out: the folder to write to.

    Raises:
        InputError: a cell is missing or of another study.
    """
    findings = find(read_cells(cells, study), study, settings.bootstrap, settings.seed)
    write_json(out / "metrics.json", as_json(findings))
    save_csv(findings, out / "curves.csv")
    _save_curves(findings, out / "curves.png")
    names = {method: METHODS[method].name for method in SHOWN}
    content: dict[str, object] = {"study": study, "findings": findings, "names": names}
    content |= {"base": findings.of(BASE)[0][1], "curves": inline_png(out / "curves.png")}
    save_page("curves.html.j2", out / "report.html", content)


def _save_curves(findings: Findings, path: Path) -> None:
    """Left: identity against prompt alignment, a line a method through its strengths. Right: identity over strength."""
    figure = Figure(figsize=(10.4, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    base = findings.of(BASE)
    _crosses(left, base, INK, "base model, no adapter")
    for method in SHOWN:
        colour, name, trace = METHODS[method].colour, METHODS[method].name, findings.of(method)
        _crosses(left, trace, colour, name)
        _band(right, [*base, *trace], colour, name)
    left.set_xlabel("prompt alignment (share with style and scene right)", fontsize=9)
    left.set_ylabel("identity (cosine)", fontsize=9)
    right.set_xlabel("strength of the adapter (0: the base model)", fontsize=9)
    for axis, title in ((left, "Up and right is better; numbers are strengths"), (right, "Identity over strength")):
        axis.grid(color=LINE, linewidth=0.8)
        axis.legend(edgecolor="none", framealpha=1, fontsize=8.5)
        dress(axis, title)
    left.margins(0.15)
    save_figure(figure, path)


def _crosses(axis: Axes, trace: Trace, colour: str, label: str) -> None:
    places = [(figures["prompt"].measured(), figures["identity"].measured()) for _, figures in trace]
    for (scale, _), ((x, *wide), (y, *high)) in zip(trace, places, strict=True):
        axis.plot(wide, [y, y], color=colour, linewidth=1.4, alpha=0.55)
        axis.plot([x, x], high, color=colour, linewidth=1.4, alpha=0.55)
        if scale:
            axis.annotate(f"{scale:g}", (x, y), (5, 4), textcoords="offset points", fontsize=8, color=colour)
    axis.plot(
        [x for (x, *_), _ in places], [y for _, (y, *_) in places], "o-", color=colour, markersize=5.5, label=label
    )


def _band(axis: Axes, trace: Trace, colour: str, label: str) -> None:
    scales = [scale for scale, _ in trace]
    means, lows, highs = zip(*(figures["identity"].measured() for _, figures in trace), strict=True)
    axis.fill_between(scales, lows, highs, color=colour, alpha=0.15, linewidth=0)
    axis.plot(scales, means, "o-", color=colour, markersize=5.5, label=label)
