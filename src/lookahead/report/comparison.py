"""`lookahead compare`: evaluations contrasted with the first one, and the same pictures in a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

FILES = ("protocol.json", "per_image.parquet", "album.parquet")  # what a comparison reads of an evaluation


@dataclass(frozen=True)
class Run:
    """One cell of one evaluation: its label in the comparison, its protocol, its rows and its pictures."""

    label: str
    cell: str
    protocol: Mapping[str, object]
    table: pd.DataFrame
    album: pd.DataFrame


def read_run(label: str, folder: Path, cell: str) -> Run:
    """Read one cell of the folder of an evaluation.

    Raises:
        InputError: a file is missing or damaged, or the evaluation has no such cell.
    """
    raise NotImplementedError


def write_comparison(runs: Sequence[Run], out: Path) -> str:
    """Write the page of two or more runs and return its table as text.

    Raises:
        InputError: two protocols differ, or two runs have one label.
    """
    raise NotImplementedError
