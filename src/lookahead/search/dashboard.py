"""optuna-dashboard over the studies of this machine, or over those that several share."""

from __future__ import annotations

import sys
from pathlib import Path

from lookahead.artifacts import STATE
from lookahead.errors import InputError

JOURNAL = STATE / "search" / "journal.log"


def dashboard_command(storage: str | None, port: int) -> list[str]:
    """The command that serves the studies on this machine's own address.

    Raises:
        InputError: no search has run here.
    """
    if storage is None and not JOURNAL.is_file():
        raise InputError(f"{JOURNAL} does not exist: run `make search` first, or name a shared --storage")
    program = str(Path(sys.executable).with_name("optuna-dashboard"))
    return [program, storage or str(JOURNAL), "--host", "127.0.0.1", "--port", str(port)]
