"""The pictures that reports show, of the first people: read from a run's folders, kept in one file for comparisons."""

from __future__ import annotations

from pathlib import Path

ALBUM = "album.parquet"


def picture_folder(pictures: Path, cell: str, sampler: str, training_seed: int) -> Path:
    """The folder with the shards of one cell's pictures."""
    return pictures / cell / sampler / str(training_seed)
