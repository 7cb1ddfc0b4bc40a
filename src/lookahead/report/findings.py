"""Summary and contrasts of some cells as tables and as the figures that evaluations and studies share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from lookahead.evaluation.contrasts import ALL
from lookahead.report.figures import Series, Trace, colours, plot_intervals, plot_tradeoff, save_panels
from lookahead.report.formats import FULL, Estimate, Estimates, Row, Table, read_contrasts, read_summary
from lookahead.report.glossary import TITLES


@dataclass(frozen=True)
class Findings:
    """Estimates by cell and by contrast, the labels of both in the order of every table, and the samplers' labels."""

    summary: Estimates
    contrasts: Estimates
    cells: Mapping[str, str]
    pairs: Mapping[str, str]
    samplers: Mapping[str, str]

    def values(self, metric: str, sampler: str = FULL, group: str = ALL) -> list[Estimate | None]:
        """A metric of every cell."""
        return [self.summary.get((cell, sampler, group, metric)) for cell in self.cells]

    def changes(self, metric: str, sampler: str = FULL, group: str = ALL) -> list[Estimate | None]:
        """A metric of every contrast."""
        return [self.contrasts.get((pair, sampler, group, metric)) for pair in self.pairs]

    def tables(self, metrics: Sequence[str], sampler: str = FULL, chosen: str = "") -> list[Table]:
        """Means, a row a cell, and contrasts, a row each; a column a metric. The cell `chosen` is emphasised."""
        heads, found = ["", *(TITLES[metric] for metric in metrics)], []
        for labels, read in ((self.cells, self.values), (self.pairs, self.changes)):
            columns = zip(*(read(metric, sampler) for metric in metrics), strict=True)
            rows = [Row(labels[name], entries, name == chosen) for name, entries in zip(labels, columns, strict=True)]
            found.append(Table(heads, [row for row in rows if row.sample]))
        return found


def read_findings(
    table: pd.DataFrame,
    summary: pd.DataFrame,
    contrasts: pd.DataFrame,
    labels: Mapping[str, str],
    samplers: Mapping[str, str],
) -> Findings:
    """The estimates of the cells in the long table; a training seed below 0 says that nothing was trained."""
    cells = {cell: label for cell, label in labels.items() if cell in set(table["cell"])}
    rows = contrasts.drop_duplicates("contrast")[["contrast", "cell", "baseline"]]
    pairs = {pair: f"{labels[cell]} against {labels[baseline]}" for pair, cell, baseline in rows.to_numpy()}
    untrained = set(table.loc[table["training_seed"] < 0, "cell"])
    return Findings(read_summary(summary, untrained), read_contrasts(contrasts), cells, pairs, samplers)


def save_contrasts(found: Findings, path: Path) -> None:
    """Draw every contrast of identity and of prompt alignment, a colour a sampler."""
    colour, panels = colours(list(found.samplers)), []
    for metric in ("identity", "prompt"):
        series = [Series(label, colour[s], found.changes(metric, s)) for s, label in found.samplers.items()]
        title = f"Contrasts of {TITLES[metric]}, 95 % intervals"
        panels.append(partial(plot_intervals, title=title, rows=list(found.pairs.values()), series=series))
    save_panels(path, 0.45 * len(found.pairs) + 1.4, *panels, share_y=True)


def save_tradeoff(found: Findings, path: Path, lines: Mapping[str, tuple[str, str]] | None = None) -> None:
    """Draw identity against prompt alignment of every cell, a panel a sampler.

    `lines` has for each cell the label of its line, whose cells are joined, and what stands at its marker.
    """
    lines = lines or {cell: (label, "") for cell, label in found.cells.items()}
    first = {lines[cell][0]: cell for cell in reversed(list(found.cells))}  # gives a line its colour
    colour, panels = colours([first[label] for label in dict.fromkeys(lines[cell][0] for cell in found.cells)]), []
    for sampler, title in found.samplers.items():
        points: dict[str, list[tuple[Estimate | None, Estimate | None, str]]] = {}
        pairs = zip(found.values("prompt", sampler), found.values("identity", sampler), strict=True)
        for cell, (prompt, identity) in zip(found.cells, pairs, strict=True):
            points.setdefault(lines[cell][0], []).append((prompt, identity, lines[cell][1]))
        traces = [Trace(label, colour[first[label]], every) for label, every in points.items()]
        panels.append(partial(plot_tradeoff, title=f"Up and right is better: {title}", traces=traces))
    save_panels(path, 4.6, *panels, share_y=True)
