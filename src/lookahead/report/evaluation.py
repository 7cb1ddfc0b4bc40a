"""The report of the main evaluation: figures, a grid, the tables that DVC plots, and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from lookahead.portraits import Person


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
        summary: rows of `contrasts.summary` over all pictures ("all"), by prompt group, by style and by scene, one below
            the other; further metrics (diversity, layout) are welcome, and a cell "scale" with the metrics
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
    raise NotImplementedError
