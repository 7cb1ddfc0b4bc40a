"""The report of the main evaluation: figures, a grid, the tables that DVC plots, and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from lookahead.evaluation.cells import FULL
from lookahead.evaluation.contrasts import ALL
from lookahead.portraits import Person
from lookahead.report import figures as plots
from lookahead.report import pages
from lookahead.report.figures import Findings, Series
from lookahead.report.formats import Row, Table, save_csv, title

GAIN = "gain"  # the contrast that the verdict is about
HEADLINE = ("identity", "prompt", "clip_t", "detected")
SECTIONS = {  # those below the headline
    "Was the loss’s recogniser fooled?": ("identity", "identity_select", "identity_loss", "identity_detected"),
    "Is the photo copied, are pictures diverse?": ("identity_other", "copied", "leak", "diversity", "diversity_faces"),
    "Style, scene and layout": ("style_right", "scene_right", "layout"),
}
SCALE = {
    "same_person": "identity of another photo of the same person",
    "stranger": "identity of somebody else’s photo",
    "base_diversity": "diversity of the base model’s own pictures",
    "layout_chance": "layout kept between two of the base model’s pictures of one prompt from different noise",
}


def write_evaluation_report(
    table: pd.DataFrame,
    summary: pd.DataFrame,
    contrasts: pd.DataFrame,
    previews: pd.DataFrame,
    people: Sequence[Person],
    pictures: Path,
    protocol: Mapping[str, Any],
    out: Path,
    *,
    labels: Mapping[str, str],
    grid_people: int,
) -> None:
    """Write `report.html`, `album.parquet`, `groups.csv`, `preview_curves.csv` and `grids/*.png` into `out`.

    `table`, `people` and `pictures` are as in `pages.make_album`; `summary` and `contrasts` are over all pictures, by
    prompt group, by style and by scene; the metrics of SCALE are those of a cell "scale". `labels` are what people read
    instead of a cell's name, in the order of every table; other cells are not shown.
    """
    found = plots.read_findings(table, summary, contrasts, labels, {FULL: "full sampling"})
    album = pages.make_album(table[table["cell"].isin(list(found.cells))], people, pictures, grid_people)
    pages.save_album(album, out / pages.ALBUM)
    save_csv(prompt_groups(found, list(protocol["groups"])), out / "groups.csv")  # dvc.yaml plots these two
    save_csv(preview_curves(previews), out / "preview_curves.csv")
    figures = {name: out / "grids" / f"{name}.png" for name in ("tradeoff", "contrasts", "groups", "previews")}
    plots.save_tradeoff(found, figures["tradeoff"])
    plots.save_contrasts(found, figures["contrasts"])
    _save_groups(found, protocol, figures["groups"])
    heads = {"identity": "Recognised as the reference (cosine)", "error": "Squared error to the noised photo"}
    panels = [partial(plots.plot_previews, head=head, previews=previews, column=name) for name, head in heads.items()]
    plots.save_panels(figures["previews"], 3.9, *panels)
    pages.save_grid(pages.grid_lines(album, found.cells), out / "grids" / "people.png")
    chosen = contrasts.loc[contrasts["contrast"] == GAIN, "cell"].iloc[0]
    sections = {head: [m for m in names if m in set(summary["metric"])] for head, names in SECTIONS.items()}
    content = {
        "verdict": verdict(found),
        "albums": _albums(album, found.cells, protocol["people"]),
        "scale": {words: found.means.get(("scale", FULL, ALL, name)) for name, words in SCALE.items()},
        "headline": found.tables(HEADLINE, chosen=chosen),
        "sections": {head: found.tables(names, chosen=chosen) for head, names in sections.items() if names},
        "groups": [_by_group(found, head, protocol[head]) for head in ("groups", "styles", "scenes")],
        "metrics": list(dict.fromkeys([*HEADLINE, *(name for names in sections.values() for name in names)])),
        "protocol": protocol,
        "figures": {name: pages.inline_file(path) for name, path in figures.items()},
    }
    pages.save_page("evaluation.html.j2", out / "report.html", content)


def verdict(found: Findings) -> str:
    """What the contrast GAIN says of identity and of prompt alignment."""
    values = {metric: found.contrasts[GAIN, FULL, ALL, metric] for metric in ("identity", "prompt")}
    said = {"higher": "is higher", "lower": "is lower"}
    parts = [
        f"{title(name)} {said.get(value.verdict, 'does not differ significantly')}: {value.number} ({value.interval})"
        for name, value in values.items()
    ]
    return f"{found.pairs[GAIN].capitalize()} ({Row('', list(values.values())).sample}): {'; '.join(parts)}."


def _by_group(found: Findings, head: str, groups: Sequence[str]) -> Table:
    """A row a group of prompts: identity of every cell, then the contrast GAIN in identity and prompt alignment."""
    rows, label = [], found.pairs[GAIN]
    for group in groups:
        changes = [found.contrasts.get((GAIN, FULL, group, metric)) for metric in ("identity", "prompt")]
        rows.append(Row(group, [*found.of_cells("identity", group=group), *changes]))
    heads = [f"identity, {cell}" for cell in found.cells.values()]
    return Table([head, *heads, f"identity, {label}", f"prompt alignment, {label}"], rows)


def _save_groups(found: Findings, protocol: Mapping[str, Any], path: Path) -> None:
    colour, panels = plots.colours(list(found.cells)), []
    for head in ("styles", "scenes"):
        columns = zip(*(found.of_cells("identity", group=group) for group in protocol[head]), strict=True)
        cells = zip(found.cells.items(), columns, strict=True)
        series = [Series(label, colour[cell], values) for (cell, label), values in cells]
        panels.append(
            partial(plots.plot_intervals, head=f"Identity by {head[:-1]}", rows=protocol[head], series=series)
        )
    plots.save_panels(path, 4.6, *panels)


def _albums(album: pd.DataFrame, cells: Mapping[str, str], names: Sequence[str]) -> list[dict[str, object]]:
    """For each person the reference, the prompts, and by label the pictures with their identities (NaN: no face)."""
    albums: list[dict[str, object]] = []
    for number, (_, every) in enumerate(album.groupby("person")):
        (reference,) = every[every["cell"] == pages.REFERENCE]["image"]
        rows = {}
        for cell, label in cells.items():
            own = every[every["cell"] == cell]
            identity = own["identity"].where(own["detected"] > 0)
            rows[label] = list(zip(map(pages.inline_thumbnail, own["image"]), identity, strict=True))
        heads = own[["style", "scene"]].to_numpy().tolist()
        shown = {"name": names[number], "reference": pages.inline_thumbnail(reference)}
        albums.append(shown | {"heads": heads, "rows": rows})
    return albums


def prompt_groups(found: Findings, groups: Sequence[str]) -> pd.DataFrame:
    """One row a cell and group of prompts: identity and prompt alignment with their intervals."""
    rows = []
    for cell, group in ((cell, group) for cell in found.cells for group in groups):
        row: dict[str, object] = {"series": f"{cell}, {group}", "cell": cell, "group": group}
        for metric in ("identity", "prompt"):
            value = found.means[cell, FULL, group, metric]
            row |= {metric: value.mean, f"{metric}_low": value.low, f"{metric}_high": value.high}
        rows.append(row)
    return pd.DataFrame(rows)


def preview_curves(previews: pd.DataFrame) -> pd.DataFrame:
    """The identity of one-step previews, a row a timestep and a column a strength of the fast child (0: naive x0)."""
    wide = previews.pivot(index="t", columns="scale", values="identity")
    return wide.rename(columns=lambda scale: f"scale {scale:g}").reset_index().rename_axis(columns=None)
