"""The command `lookahead`: the stages for people, and what they ask before and after."""

from __future__ import annotations

import runpy
import socket
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lookahead.errors import InputError, one_message

if TYPE_CHECKING:
    from lookahead.config import Params

app = typer.Typer(
    help="LCM-Lookahead: data, training, evaluation. `make repro` (or `dvc repro`) runs whatever is out of date.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
World = Annotated[str | None, typer.Option(help="a world of params.yaml; default: its `world`")]


def parameters() -> Params:
    """params.yaml; commands read it before they import torch, so that a typo is reported at once."""
    from lookahead.config import read_params

    return read_params()


def script(name: str) -> Path:
    """The script of a stage, in the repository's root."""
    path = Path("stages") / f"{name}.py"
    if not path.is_file():
        raise InputError(f"{path} does not exist in {Path.cwd()}: run from the repository's root")
    return path


def run_stage(name: str, **options: str | None) -> None:
    """Run a stage's script, the one that `dvc repro` runs."""
    path = script(name)
    given = [word for option, value in options.items() if value is not None for word in (f"--{option}", value)]
    sys.argv = [str(path), *given]
    runpy.run_path(str(path), run_name="__main__")


def check_port(port: int) -> None:
    """Refuse a port that no server can listen on, before anything is opened."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port} of 127.0.0.1 cannot be used ({error}): choose another by `--port`") from None


def main() -> None:
    """The entry point: bad input is one message and exit code 1."""
    for stream in (sys.stdout, sys.stderr):  # a file's name need not be UTF-8
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
    with one_message():
        app()


from lookahead.cli import pictures, stages, studies  # noqa: E402, F401  (they add their commands to `app`)
