"""What a check found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from lookahead.errors import InputError


class Finding(NamedTuple):
    """`bad` stops a run, `odd` need not; `mend` says how to get or change what is bad."""

    state: Literal["ok", "odd", "bad"]
    subject: str
    message: str
    mend: str


def tried(subject: str, check: Callable[[], Finding]) -> Finding:
    """What a check found; one that refuses its input is bad, and its message says what to do."""
    try:
        return check()
    except InputError as error:
        return Finding("bad", subject, str(error), str(error))
