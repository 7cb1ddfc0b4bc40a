"""Looks before the work starts: would a reproduction run here, and if not, what would mend it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from lookahead.config import Evaluate, Params, read_evaluate
from lookahead.dataset.prompts import read_prompts
from lookahead.doctor.checkpoints import checkpoints
from lookahead.doctor.finding import Finding, tried
from lookahead.doctor.machine import disk, folder, machine, packages, repository
from lookahead.doctor.servers import servers
from lookahead.errors import InputError
from lookahead.portraits import read_people
from lookahead.stage import RUNS

__all__ = ["Finding", "examine"]


def _readable(path: Path) -> None:
    try:
        with Image.open(path) as picture:
            picture.verify()
    except OSError as error:
        raise InputError(f"{path} cannot be read as a picture ({error}): replace it") from None


def _prompts(path: str) -> Finding:
    prompts = read_prompts(path)
    return Finding("ok", "prompts", f"{path}: {len(prompts.styles)} styles, {len(prompts.scenes)} scenes", "")


def _protocol(settings: Evaluate) -> Finding:
    people = read_people(Path(settings.portraits), settings.people)
    for person in people:
        _readable(person.reference)
    _prompts(settings.prompts)
    return Finding("ok", "protocol", f"{settings.protocol}: {len(people)} people of {settings.portraits}", "")


def examine(params: Params, world_name: str, storage: str | None) -> Iterator[Finding]:
    """Check the machine, the packages, and everything that the world's parameters name.

    Args:
        params: all parameters.
        world_name: the world to check.
        storage: the address of a shared search's database, if there is one.

    Raises:
        InputError: there is no such world.
    """
    world = params.of(world_name)
    yield from machine(world)
    yield from packages()
    yield from repository()
    yield from checkpoints(world.checkpoints, world_name)
    yield tried("prompts", lambda: _prompts(world.generate.prompts))
    yield tried("protocol", lambda: _protocol(read_evaluate(world.evaluate)))
    yield tried("disk", lambda: disk(world, RUNS))
    for place in (RUNS, Path("state")):
        yield tried(f"folder {place}", lambda p=place: folder(p))  # type: ignore[misc]
    yield from servers(params, storage)
