"""The command `lookahead`: the stages for people, and what they ask before and after."""

from __future__ import annotations

import sys

from lookahead.cli import pictures, stages, studies  # noqa: F401  (importing them adds their commands)
from lookahead.cli.base import app
from lookahead.errors import InputError

__all__ = ["app", "main"]


def main() -> None:
    """The entry point: bad input is one message and exit code 1."""
    try:
        app()
    except InputError as error:
        sys.exit(f"error: {error}")
