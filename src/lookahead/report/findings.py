"""Means and contrasts of some cells: as tables, and as the figures that evaluations and studies share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from lookahead.evaluation.contrasts import ALL
from lookahead.report.figures import Series, Trace, colours, plot_intervals, plot_tradeoff, save_panels
from lookahead.report.formats import Estimate, Estimates, Row, Table, read_estimates
from lookahead.report.glossary import title

FULL = "full"  # the sampler of the main evaluation


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
        panels.append(partial(plot_intervals, title=head, rows=list(found.pairs.values()), series=series))
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
        panels.append(partial(plot_tradeoff, title=f"Up and right is better: {label}", traces=traces))
    save_panels(path, 4.6, *panels, share_y=True)
