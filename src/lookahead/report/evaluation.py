"""The report of the main evaluation: figures, a grid, the tables that DVC plots, and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from lookahead.portraits import Person
from lookahead.report.album import ALBUM, REFERENCE, SHOT, grid_lines, make_album, save_album
from lookahead.report.figures import (
    Series,
    Trace,
    colours,
    plot_intervals,
    plot_previews,
    plot_tradeoff,
    save_panels,
)
from lookahead.report.formats import (
    ALL,
    FULL,
    Estimate,
    Estimates,
    Row,
    Table,
    read_contrasts,
    read_summary,
    sample_size,
    save_csv,
    untrained,
)
from lookahead.report.glossary import MEANINGS, SCALE, TITLES
from lookahead.report.grids import save_grid
from lookahead.report.pages import inline_file, inline_thumbnail, save_page

GROUPS, CURVES = "groups.csv", "preview_curves.csv"  # dvc.yaml plots them
_HEADLINE = ("identity", "prompt", "clip_t", "detected")
_SPREAD = ("diversity", "diversity_faces", "copied", "layout")
_RECOGNISERS = ("identity", "identity_select", "identity_loss")
_FOREST = ("identity", "identity_select", "identity_loss", "prompt", "detected")


@dataclass(frozen=True)
class _Findings:
    """Estimates by cell and by contrast, the labels of both in the order of every table, and what the verdict is of."""

    summary: Estimates
    contrasts: Estimates
    cells: Mapping[str, str]
    pairs: Mapping[str, str]
    headline: str
    chosen: str  # the headline's cell

    def values(self, metric: str, group: str = ALL) -> list[Estimate | None]:
        """A metric of every cell."""
        return [self.summary.get((cell, FULL, group, metric)) for cell in self.cells]

    def change(self, contrast: str, metric: str, group: str = ALL) -> Estimate | None:
        return self.contrasts.get((contrast, FULL, group, metric))

    def by_cell(self, metrics: Sequence[str]) -> Table:
        """A row a cell and a contrast, a column a metric."""
        columns = list(zip(*(self.values(metric) for metric in metrics), strict=True))
        rows = [
            Row(label, entries, cell == self.chosen)
            for (cell, label), entries in zip(self.cells.items(), columns, strict=True)
        ]
        rows += [Row(label, [self.change(pair, metric) for metric in metrics]) for pair, label in self.pairs.items()]
        return Table(["method", *(TITLES[metric] for metric in metrics)], rows)

    def by_metric(self, metrics: Sequence[str], pairs: Sequence[str]) -> Table:
        """A row a metric, a column a cell and a contrast."""
        rows = [
            Row(TITLES[metric], [*self.values(metric), *(self.change(pair, metric) for pair in pairs)])
            for metric in metrics
        ]
        return Table(["metric", *self.cells.values(), *(self.pairs[pair] for pair in pairs)], rows)

    def by_group(self, head: str, groups: Sequence[str]) -> Table:
        """A row a group of prompts: identity of every cell, then the headline contrast's identity and prompt."""
        rows = [
            Row(
                group,
                [
                    *self.values("identity", group),
                    *(self.change(self.headline, metric, group) for metric in ("identity", "prompt")),
                ],
            )
            for group in groups
        ]
        label = self.pairs[self.headline]
        heads = [*(f"identity, {name}" for name in self.cells.values()), f"identity, {label}"]
        return Table([head, *heads, f"prompt alignment, {label}"], rows)


def write_evaluation_report(
    table: pd.DataFrame,
    summary: pd.DataFrame,
    contrasts: pd.DataFrame,
    previews: pd.DataFrame,
    people: Sequence[Person],
    pictures: Path,
    protocol: Mapping[str, object],
    out: Path,
    *,
    labels: Mapping[str, str],
    headline: str = "gain",
    grid_people: int = 6,
) -> None:
    """Write `report.html`, `album.parquet`, `groups.csv`, `preview_curves.csv` and `grids/*.png` into `out`.

    Args:
        table: one row a picture, in the order in which each cell's pictures were drawn.
        summary: rows of `contrasts.summary` over all pictures ("all"), by prompt group, by style and by scene, one
            below the other; further metrics (diversity, layout) are welcome, and a cell "scale" with the metrics
            `same_person`, `stranger`, `base_diversity` and `layout_chance`.
        contrasts: rows of `contrasts.contrasts`, over the same groups.
        previews: `previews.csv`: t, scale, identity, identity_low, identity_high, error.
        people: those of the table, by number.
        pictures: holds `<cell>/<sampler>/<training_seed>/00000.parquet` (`album.picture_folder`).
        protocol: what `protocol.json` holds: people, prompts, styles, scenes, groups, settings, hash.
        out: the folder to write to.
        labels: what people read instead of a cell's name, in the order of every table; other cells are not shown.
        headline: the contrast that the verdict is about.
        grid_people: how many people the page shows, the first ones.
    """
    shown = {cell: label for cell, label in labels.items() if cell in set(table["cell"])}
    pairs = contrasts.drop_duplicates("contrast").set_index("contrast")[["cell", "baseline"]]
    found = _Findings(
        read_summary(summary, untrained(table)),
        read_contrasts(contrasts),
        shown,
        {pair: f"{labels[cell]} against {labels[baseline]}" for pair, cell, baseline in pairs.itertuples()},
        headline,
        str(pairs.loc[headline, "cell"]),
    )
    album = make_album(table[table["cell"].isin(shown)], people, pictures, grid_people)
    save_album(album, out / ALBUM)
    save_csv(prompt_groups(summary, list(shown), list(_of(protocol, "groups"))), out / GROUPS)
    save_csv(preview_curves(previews), out / CURVES)
    figures = _save_figures(found, previews, protocol, out / "grids")
    save_grid(grid_lines(album, shown), out / "grids" / "people.png")
    content: dict[str, object] = {
        "verdict": verdict(found.pairs[headline], *(found.change(headline, m) for m in ("identity", "prompt"))),
        "count": len(people),
        "albums": _albums(album, shown, people),
        "pictures_each": len(table) // table.groupby(["cell", "sampler", "training_seed"]).ngroups // len(people),
        "chosen": shown[found.chosen],
        "scale": [(title, found.summary.get(("scale", FULL, ALL, name))) for name, title in SCALE.items()],
        "tables": _tables(found, protocol),
        "meanings": {TITLES[name]: MEANINGS[name] for name in _measured(found)},
        "protocol": protocol,
        "figures": {name: inline_file(path) for name, path in figures.items()},
    }
    save_page("evaluation.html.j2", out / "report.html", content)


def _of(protocol: Mapping[str, object], name: str) -> Any:
    return protocol[name]


def _measured(found: _Findings) -> list[str]:
    return [name for name in TITLES if any(key[3] == name for key in found.summary)]


def _tables(found: _Findings, protocol: Mapping[str, object]) -> dict[str, Table]:
    measured = _measured(found)
    return {
        "headline": found.by_cell(_HEADLINE),
        "groups": found.by_group("prompts", list(_of(protocol, "groups"))),
        "spread": found.by_cell([name for name in _SPREAD if name in measured]),
        "styles": found.by_group("style", _of(protocol, "styles")),
        "scenes": found.by_group("scene", _of(protocol, "scenes")),
        "recognisers": found.by_metric(_RECOGNISERS, [found.headline]),
        "all": found.by_metric(measured, []),
        "contrasts": Table(
            ["metric", *found.pairs.values()],
            [Row(TITLES[name], [found.change(pair, name) for pair in found.pairs]) for name in measured],
        ),
    }


def _save_figures(
    found: _Findings, previews: pd.DataFrame, protocol: Mapping[str, object], folder: Path
) -> dict[str, Path]:
    """The figures of the page by name."""
    paths = {name: folder / f"{name}.png" for name in ("overview", "styles_and_scenes", "previews")}
    colour, pair_colour = colours(list(found.cells)), colours(list(found.pairs))
    points = zip(found.cells.items(), found.values("prompt"), found.values("identity"), strict=True)
    lines = [Trace(label, colour[cell], [(prompt, identity, "")]) for (cell, label), prompt, identity in points]
    changes = [
        Series(label, pair_colour[pair], [found.change(pair, metric) for metric in _FOREST])
        for pair, label in found.pairs.items()
    ]
    save_panels(
        paths["overview"],
        4.6,
        partial(plot_tradeoff, title="Identity against prompt: up and right is better", traces=lines),
        partial(
            plot_intervals,
            title="Contrasts, 95 % intervals (hollow: not significant)",
            rows=[TITLES[metric] for metric in _FOREST],
            series=changes,
        ),
    )
    panels = []
    for head in ("styles", "scenes"):
        groups = _of(protocol, head)
        columns = zip(*(found.values("identity", group) for group in groups), strict=True)
        series = [
            Series(label, colour[cell], values)
            for (cell, label), values in zip(found.cells.items(), columns, strict=True)
        ]
        panels.append(partial(plot_intervals, title=f"Identity by {head[:-1]}", rows=groups, series=series))
    save_panels(paths["styles_and_scenes"], 4.6, *panels)
    save_panels(
        paths["previews"],
        3.9,
        partial(plot_previews, title="Recognised as the reference (cosine)", previews=previews, column="identity"),
        partial(plot_previews, title="Squared error to the noised photo", previews=previews, column="error"),
    )
    return paths


def verdict(label: str, identity: Estimate | None, prompt: Estimate | None) -> str:
    """What the headline contrast says of identity and of prompt alignment, in two sentences."""
    if identity is None or prompt is None:
        return f"{label}: not measured."
    words = {"higher": "is higher", "lower": "is lower"}
    said = [
        f"{name} {words.get(value.verdict, 'differs, but not significantly')}: {value.number} ({value.interval})"
        for name, value in (("Identity", identity), ("Prompt alignment", prompt))
    ]
    return f"{label[:1].upper()}{label[1:]}, over {sample_size([identity, prompt])}: {'. '.join(said)}."


def _albums(album: pd.DataFrame, cells: Mapping[str, str], people: Sequence[Person]) -> list[dict[str, object]]:
    """For each person the reference, the prompts, and by label the pictures with their identities (NaN: no face)."""
    albums: list[dict[str, object]] = []
    for number, every in album.groupby("person"):
        (reference,) = every[every["cell"] == REFERENCE]["image"]
        rows = {}
        for cell, label in cells.items():
            own = every[every["cell"] == cell]
            identity = own["identity"].where(own["detected"] > 0)
            rows[label] = list(zip(map(inline_thumbnail, own["image"]), identity, strict=True))
        shots = every[every["cell"] == next(iter(cells))][SHOT]
        heads = list(shots[["style", "scene"]].itertuples(index=False, name=None))
        name = people[int(number)].name  # type: ignore[call-overload]
        albums.append({"name": name, "reference": inline_thumbnail(reference), "heads": heads, "rows": rows})
    return albums


def prompt_groups(summary: pd.DataFrame, cells: Sequence[str], groups: Sequence[str]) -> pd.DataFrame:
    """One row a cell and group of prompts: identity and prompt alignment with their intervals."""
    found = read_summary(summary)
    rows = []
    for cell, group in ((cell, group) for cell in cells for group in groups):
        row: dict[str, object] = {"series": f"{cell}, {group}", "cell": cell, "group": group}
        for metric in ("identity", "prompt"):
            value = found[cell, FULL, group, metric]
            row |= {metric: value.mean, f"{metric}_low": value.low, f"{metric}_high": value.high}
        rows.append(row)
    return pd.DataFrame(rows)


def preview_curves(previews: pd.DataFrame) -> pd.DataFrame:
    """The identity of one-step previews, a row a timestep and a column a strength of the fast child (0: naive x0)."""
    wide = previews.pivot(index="t", columns="scale", values="identity")
    return wide.rename(columns=lambda scale: f"scale {scale:g}").reset_index().rename_axis(columns=None)
