"""The report of the main evaluation: figures, a grid, the tables that DVC plots, and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from lookahead.evaluation.contrasts import ALL
from lookahead.portraits import Person
from lookahead.report.figures import Series, colours, plot_intervals, plot_previews, save_panels
from lookahead.report.findings import FULL, Findings, read_findings, save_contrasts, save_tradeoff
from lookahead.report.formats import Row, Table, save_csv
from lookahead.report.glossary import HEADLINE, SCALE, SECTIONS, title
from lookahead.report.grids import ALBUM, REFERENCE, grid_lines, make_album, save_album, save_grid
from lookahead.report.pages import inline_file, inline_thumbnail, save_page


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
    headline: str = "gain",
    grid_people: int = 6,
) -> None:
    """Write `report.html`, `album.parquet`, `groups.csv`, `preview_curves.csv` and `grids/*.png` into `out`.

    Args:
        table: one row a picture, in the order in which each cell's pictures were drawn.
        summary: rows of `contrasts.summary` over all pictures ("all"), by prompt group, by style and by scene, one
            below the other; further metrics (diversity, layout) may be among them, and a cell "scale" with the metrics
            `same_person`, `stranger`, `base_diversity` and `layout_chance`.
        contrasts: rows of `contrasts.contrasts`, over the same groups.
        previews: `previews.csv`: t, scale, identity, identity_low, identity_high, error.
        people: those of the table, by number.
        pictures: holds `<cell>/<sampler>/<training_seed>/00000.parquet` (`grids.picture_folder`).
        protocol: what `protocol.json` holds: people, prompts, styles, scenes, groups, settings, hash.
        out: the folder to write to.
        labels: what people read instead of a cell's name, in the order of every table; other cells are not shown.
        headline: the contrast that the verdict is about.
        grid_people: how many people the page shows, the first ones.
    """
    found = read_findings(table, summary, contrasts, labels, {FULL: "full sampling"})
    album = make_album(table[table["cell"].isin(list(found.cells))], people, pictures, grid_people)
    save_album(album, out / ALBUM)
    save_csv(prompt_groups(found, list(protocol["groups"])), out / "groups.csv")  # dvc.yaml plots these two
    save_csv(preview_curves(previews), out / "preview_curves.csv")
    figures = {name: out / "grids" / f"{name}.png" for name in ("tradeoff", "contrasts", "groups", "previews")}
    save_tradeoff(found, figures["tradeoff"])
    save_contrasts(found, figures["contrasts"])
    _save_groups(found, protocol, figures["groups"])
    _save_previews(previews, figures["previews"])
    save_grid(grid_lines(album, found.cells), out / "grids" / "people.png")
    chosen = contrasts.loc[contrasts["contrast"] == headline, "cell"].iloc[0]
    sections = {head: [m for m in names if m in set(summary["metric"])] for head, names in SECTIONS.items()}
    content = {
        "verdict": verdict(found, headline),
        "albums": _albums(album, found.cells, protocol["people"]),
        "scale": {words: found.means.get(("scale", FULL, ALL, name)) for name, words in SCALE.items()},
        "headline": found.tables(HEADLINE, chosen=chosen),
        "sections": {head: found.tables(names, chosen=chosen) for head, names in sections.items() if names},
        "groups": [_by_group(found, headline, head, protocol[head]) for head in ("groups", "styles", "scenes")],
        "metrics": list(dict.fromkeys([*HEADLINE, *(name for names in sections.values() for name in names)])),
        "protocol": protocol,
        "figures": {name: inline_file(path) for name, path in figures.items()},
    }
    save_page("evaluation.html.j2", out / "report.html", content)


def verdict(found: Findings, headline: str) -> str:
    """What the headline contrast says of identity and of prompt alignment."""
    values = {metric: found.contrasts[headline, FULL, ALL, metric] for metric in ("identity", "prompt")}
    said = {"higher": "is higher", "lower": "is lower"}
    parts = [
        f"{title(name)} {said.get(value.verdict, 'does not differ significantly')}: {value.number} ({value.interval})"
        for name, value in values.items()
    ]
    return f"{found.pairs[headline].capitalize()} ({Row('', list(values.values())).sample}): {'; '.join(parts)}."


def _by_group(found: Findings, headline: str, head: str, groups: Sequence[str]) -> Table:
    """A row a group of prompts: identity of every cell, then the headline contrast's identity and prompt alignment."""
    rows, label = [], found.pairs[headline]
    for group in groups:
        changes = [found.contrasts.get((headline, FULL, group, metric)) for metric in ("identity", "prompt")]
        rows.append(Row(group, [*found.of_cells("identity", group=group), *changes]))
    heads = [f"identity, {cell}" for cell in found.cells.values()]
    return Table([head, *heads, f"identity, {label}", f"prompt alignment, {label}"], rows)


def _save_groups(found: Findings, protocol: Mapping[str, Any], path: Path) -> None:
    colour, panels = colours(list(found.cells)), []
    for head in ("styles", "scenes"):
        columns = zip(*(found.of_cells("identity", group=group) for group in protocol[head]), strict=True)
        cells = zip(found.cells.items(), columns, strict=True)
        series = [Series(label, colour[cell], values) for (cell, label), values in cells]
        panels.append(partial(plot_intervals, title=f"Identity by {head[:-1]}", rows=protocol[head], series=series))
    save_panels(path, 4.6, *panels)


def _save_previews(previews: pd.DataFrame, path: Path) -> None:
    heads = {"identity": "Recognised as the reference (cosine)", "error": "Squared error to the noised photo"}
    panels = [partial(plot_previews, title=head, previews=previews, column=name) for name, head in heads.items()]
    save_panels(path, 3.9, *panels)


def _albums(album: pd.DataFrame, cells: Mapping[str, str], names: Sequence[str]) -> list[dict[str, object]]:
    """For each person the reference, the prompts, and by label the pictures with their identities (NaN: no face)."""
    albums: list[dict[str, object]] = []
    for number, (_, every) in enumerate(album.groupby("person")):
        (reference,) = every[every["cell"] == REFERENCE]["image"]
        rows = {}
        for cell, label in cells.items():
            own = every[every["cell"] == cell]
            identity = own["identity"].where(own["detected"] > 0)
            rows[label] = list(zip(map(inline_thumbnail, own["image"]), identity, strict=True))
        heads = own[["style", "scene"]].to_numpy().tolist()
        shown = {"name": names[number], "reference": inline_thumbnail(reference)}
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
