"""What a checkpoint is, whatever it is called: files by their contents, those of a hub by their names."""

from __future__ import annotations

from pathlib import Path

from lookahead.artifacts import digest_paths


def identity(source: str | None) -> str | None:
    """The digest of a local folder or file, else the name itself: two machines agree on both.

    Raises:
        InputError: a file cannot be read.
    """
    path = Path((source or "").removeprefix("local-dir:"))
    return digest_paths([path]) if source and path.exists() else source
