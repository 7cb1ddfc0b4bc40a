"""The report of the main evaluation: figures, a grid, the tables that DVC plots, and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from lookahead.evaluation.contrasts import ALL
from lookahead.portraits import Person
from lookahead.report.album import ALBUM, REFERENCE, SHOT, grid_lines, make_album, save_album
from lookahead.report.figures import Series, colours, plot_intervals, plot_previews, save_panels
from lookahead.report.findings import Findings, read_findings, save_contrasts, save_tradeoff
from lookahead.report.formats import FULL, Estimate, Row, Table, save_csv
from lookahead.report.glossary import HEADLINE, MEANINGS, SCALE, SECTIONS, TITLES
from lookahead.report.grids import save_grid
from lookahead.report.pages import inline_file, inline_thumbnail, save_page

GROUPS, CURVES = "groups.csv", "preview_curves.csv"  # dvc.yaml plots them


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
    found = read_findings(table, summary, contrasts, labels, {FULL: "full sampling"})
    album = make_album(table[table["cell"].isin(list(found.cells))], people, pictures, grid_people)
    save_album(album, out / ALBUM)
    save_csv(prompt_groups(found, list(protocol["groups"])), out / GROUPS)
    save_csv(preview_curves(previews), out / CURVES)
    figures = {name: out / "grids" / f"{name}.png" for name in ("tradeoff", "contrasts", "groups", "previews")}
    save_tradeoff(found, figures["tradeoff"])
    save_contrasts(found, figures["contrasts"])
    _save_groups(found, protocol, figures["groups"])
    _save_previews(previews, figures["previews"])
    save_grid(grid_lines(album, found.cells), out / "grids" / "people.png")
    chosen = contrasts.loc[contrasts["contrast"] == headline, "cell"].iloc[0]
    measured = {key[3] for key in found.summary}
    sections = {title: [name for name in names if name in measured] for title, names in SECTIONS.items()}
    content: dict[str, object] = {
        "verdict": verdict(found, headline),
        "albums": _albums(album, found.cells, protocol["people"]),
        "scale": {title: found.summary.get(("scale", FULL, ALL, name)) for name, title in SCALE.items()},
        "headline": found.tables(HEADLINE, chosen=chosen),
        "sections": {title: found.tables(names, chosen=chosen) for title, names in sections.items() if names},
        "groups": [_by_group(found, headline, head, protocol[head]) for head in ("groups", "styles", "scenes")],
        "meanings": {TITLES[name]: meaning for name, meaning in MEANINGS.items() if name in measured},
        "protocol": protocol,
        "figures": {name: inline_file(path) for name, path in figures.items()},
    }
    save_page("evaluation.html.j2", out / "report.html", content)


def verdict(found: Findings, headline: str) -> str:
    """What the headline contrast says of identity and of prompt alignment."""
    entries: dict[str, Estimate] = {
        TITLES[metric]: found.contrasts[headline, FULL, ALL, metric] for metric in ("identity", "prompt")
    }
    said = {"higher": "is higher", "lower": "is lower"}
    parts = [
        f"{name} {said.get(value.verdict, 'does not differ significantly')}: {value.number} ({value.interval})"
        for name, value in entries.items()
    ]
    sample = Row("", list(entries.values())).sample
    return f"{found.pairs[headline].capitalize()} ({sample}): {'; '.join(parts)}."


def _by_group(found: Findings, headline: str, head: str, groups: Sequence[str]) -> Table:
    """A row a group of prompts: identity of every cell, then the headline contrast's identity and prompt alignment."""
    rows = []
    for group in groups:
        changes = [found.contrasts.get((headline, FULL, group, metric)) for metric in ("identity", "prompt")]
        rows.append(Row(group, [*found.values("identity", group=group), *changes]))
    names = [f"identity, {label}" for label in found.cells.values()]
    changed = [f"{TITLES[metric]}, {found.pairs[headline]}" for metric in ("identity", "prompt")]
    return Table([head, *names, *changed], rows)


def _save_groups(found: Findings, protocol: Mapping[str, Any], path: Path) -> None:
    colour, panels = colours(list(found.cells)), []
    for head in ("styles", "scenes"):
        columns = zip(*(found.values("identity", group=group) for group in protocol[head]), strict=True)
        cells = zip(found.cells.items(), columns, strict=True)
        series = [Series(label, colour[cell], values) for (cell, label), values in cells]
        panels.append(partial(plot_intervals, title=f"Identity by {head[:-1]}", rows=protocol[head], series=series))
    save_panels(path, 4.6, *panels)


def _save_previews(previews: pd.DataFrame, path: Path) -> None:
    titles = {"identity": "Recognised as the reference (cosine)", "error": "Squared error to the noised photo"}
    panels = [partial(plot_previews, title=title, previews=previews, column=name) for name, title in titles.items()]
    save_panels(path, 3.9, *panels)


def _albums(album: pd.DataFrame, cells: Mapping[str, str], names: Sequence[str]) -> list[dict[str, object]]:
    """For each person the reference, the prompts, and by label the pictures with their identities (NaN: no face)."""
    albums: list[dict[str, object]] = []
    for number, (_, every) in enumerate(album.groupby("person")):
        (reference,) = every[every["cell"] == REFERENCE]["image"]
        own = {label: every[every["cell"] == cell] for cell, label in cells.items()}
        shots = next(iter(own.values()))[SHOT]
        rows = {
            label: list(zip(map(inline_thumbnail, e["image"]), e["identity"].where(e["detected"] > 0), strict=True))
            for label, e in own.items()
        }
        heads = shots[["style", "scene"]].to_numpy().tolist()
        shown: dict[str, object] = {"name": names[number], "reference": inline_thumbnail(reference)}
        albums.append(shown | {"heads": heads, "rows": rows})
    return albums


def prompt_groups(found: Findings, groups: Sequence[str]) -> pd.DataFrame:
    """One row a cell and group of prompts: identity and prompt alignment with their intervals."""
    rows = []
    for cell, group in ((cell, group) for cell in found.cells for group in groups):
        row: dict[str, object] = {"series": f"{cell}, {group}", "cell": cell, "group": group}
        for metric in ("identity", "prompt"):
            value = found.summary[cell, FULL, group, metric]
            row |= {metric: value.mean, f"{metric}_low": value.low, f"{metric}_high": value.high}
        rows.append(row)
    return pd.DataFrame(rows)


def preview_curves(previews: pd.DataFrame) -> pd.DataFrame:
    """The identity of one-step previews, a row a timestep and a column a strength of the fast child (0: naive x0)."""
    wide = previews.pivot(index="t", columns="scale", values="identity")
    return wide.rename(columns=lambda scale: f"scale {scale:g}").reset_index().rename_axis(columns=None)
