"""One process at a time."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lookahead.artifacts import writing


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock file: others of this machine wait until it is free.

    Raises:
        InputError: the file cannot be made.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
