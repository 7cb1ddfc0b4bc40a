"""Tables with one row a picture: written, and read again by studies."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa

from lookahead.artifacts import write_parquet
from lookahead.errors import InputError
from lookahead.evaluation.measure import Row

PER_IMAGE = "per_image.parquet"


def as_table(rows: Iterable[Row]) -> pd.DataFrame:
    """Rows as a table."""
    return pd.DataFrame(list(rows))


def save_rows(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Write a table, and hand it back; equal tables are equal bytes.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    write_parquet(path, pa.Table.from_pandas(table, preserve_index=False))
    return table


def read_rows(path: Path, people: int, again: str) -> pd.DataFrame:
    """Read what a cell of a study measured of so many people; `again` is the command that measures it.

    Raises:
        InputError: the table is missing or damaged, or shows another number of people.
    """
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error!s:.200}): run `{again}` again") from None
    if table["person"].nunique() != people:
        raise InputError(f"{path} is of another study than params.yaml describes: run `{again}` again")
    return table
