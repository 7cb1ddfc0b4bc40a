"""Looks before the work starts: would a reproduction run here, and if not, what would mend it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

import onnxruntime
import psutil
from PIL import Image

from lookahead.artifacts import STATE, atomic, files_below
from lookahead.config import Evaluate, Params, World, read_evaluate
from lookahead.data.prompts import read_prompts
from lookahead.errors import InputError
from lookahead.evaluation.portraits import read_people
from lookahead.stage import RUNS, cores
from lookahead.tracking import connect, store_uri
from lookahead.world import device
from lookahead.world.sources import check_folder

FREE_DISK = 3.0  # GB: the miniature's outputs, once in `runs` and once in DVC's cache
MEMORY = 8.0  # GB


class Finding(NamedTuple):
    """What a check found: `bad` stops a run, `odd` need not."""

    state: Literal["ok", "odd", "bad"]
    subject: str
    message: str


def _machine() -> Iterator[Finding]:
    memory = psutil.virtual_memory().total / 1e9
    told = f"Python {platform.python_version()}, {cores()} cores, {memory:.0f} GB of memory, runs on {device()}"
    yield Finding("ok" if memory >= MEMORY * 0.95 else "odd", "machine", told)


def _pins(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip(): pinned.split(";")[0].strip() for name, _, pinned in pairs}


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _packages() -> Iterator[Finding]:
    pins = _pins(Path("constraints.txt"))
    found = {name: _installed(name) for name in pins}
    other = [f"{n} {found[n]} (tested: {pin})" for n, pin in pins.items() if found[n] not in (pin, "missing")]
    told = f"differ from the tested set: {', '.join(other)}; `make install` mends it" if other else "the tested set"
    yield Finding("odd" if other else "ok", "packages", told)


def _sources(world: World) -> dict[str, str]:
    """Every checkpoint by its name in the parameters: a folder or a hub id."""
    parts = world.checkpoints
    named = {
        "base": parts.base,
        "vae": parts.vae,
        "preview_vae": parts.preview_vae,
        "fast_child": parts.fast_child,
        "generator.pipeline": parts.generator.pipeline,
        "generator.lora": parts.generator.lora,
        "adapter": parts.adapter.source,
        "image_encoder": parts.image_encoder.source,
        "scorer": parts.scorer.model,
    }
    return {name: source for name, source in named.items() if source is not None}


def _checkpoint(name: str, source: str) -> Finding:
    folder = source.removeprefix("local-dir:")
    if "/" in source:  # others are names that open_clip knows
        check_folder(folder)
    if Path(folder).is_dir() and not files_below(Path(folder)):
        raise InputError(f"{folder} is empty: run `git checkout -- models`, or `make miniature`")
    return Finding("ok", f"checkpoints.{name}", folder if Path(folder).is_dir() else f"{source}, from the hub")


def _pack(role: str, pack: str) -> Finding:
    if "/" in pack and not Path(pack).is_dir():
        raise InputError(f"the face pack {pack} does not exist: check `checkpoints.faces`, or run `make miniature`")
    for path in sorted(Path(pack).glob("*.onnx")):
        try:
            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has a class a reason, without a common one of its own
            raise InputError(f"{path} is damaged ({str(error)[:80]}): fetch it again, or `make miniature`") from None
    return Finding("ok", f"checkpoints.faces.{role}", pack)


def _readable(path: Path) -> None:
    try:
        with Image.open(path) as picture:
            picture.verify()
    except OSError as error:
        raise InputError(f"{path} cannot be read as a picture ({error}): replace it") from None


def _protocol(settings: Evaluate) -> Finding:
    people = read_people(Path(settings.portraits), settings.people)
    for person in people:
        _readable(person.reference)
    _prompts(settings.prompts)
    return Finding("ok", "protocol", f"{settings.protocol}: {len(people)} people of {settings.portraits}")


def _prompts(path: str) -> Finding:
    prompts = read_prompts(path)
    return Finding("ok", "prompts", f"{path}: {len(prompts.styles)} styles, {len(prompts.scenes)} scenes")


def _folder(path: Path) -> Finding:
    with atomic(path / ".doctor") as probe:
        probe.write_text("x", encoding="utf-8")
    (path / ".doctor").unlink()
    free = shutil.disk_usage(path).free / 1e9
    if free < FREE_DISK:
        raise InputError(f"{path} has {free:.1f} GB left; a reproduction takes about {FREE_DISK:.0f}: free some space")
    return Finding("ok", str(path), f"can be written to, {free:.0f} GB free")


def _store(params: Params) -> Finding:
    if not params.tracking.enabled:
        return Finding("odd", "tracking", "switched off (`tracking.enabled`)")
    try:
        connect(params.tracking)
    except Exception as error:  # a broken store is no reason not to run
        told = f"{store_uri(params.tracking)} cannot be opened, runs will not be tracked ({str(error)[:120]})"
        return Finding("odd", "tracking", told)
    return Finding("ok", "tracking", store_uri(params.tracking))


def _repository() -> Iterator[Finding]:
    there = Path("dvc.yaml").is_file() and Path(".dvc").is_dir() and Path(os.environ.get("DVC_ROOT", ".git")).exists()
    told = "a clone, from its root" if there else "no clone here: DVC needs the repository's root with .git and .dvc"
    yield Finding("ok" if there else "bad", "repository", told)
    found = shutil.which("python") or "none"
    same = Path(found).parent.resolve() == Path(sys.executable).parent.resolve()
    told = found if same else f"`dvc repro` would use {found}: `source .venv/bin/activate` first, or use `make repro`"
    yield Finding("ok" if same else "odd", "python", told)


def _tried(subject: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except InputError as error:
        return Finding("bad", subject, str(error))


def examine(params: Params, world_name: str) -> Iterator[Finding]:
    """Check the machine, the packages, and everything that the world's parameters name.

    Raises:
        InputError: there is no such world.
    """
    if world_name not in params.worlds:
        raise InputError(f"there is no world {world_name!r}: params.yaml has {', '.join(sorted(params.worlds))}")
    world = params.worlds[world_name]
    yield from _machine()
    yield from _packages()
    yield from _repository()
    for name, source in _sources(world).items():
        yield _tried(f"checkpoints.{name}", lambda n=name, s=source: _checkpoint(n, s))  # type: ignore[misc]
    for role, pack in world.checkpoints.faces.model_dump(exclude={"detection_size"}).items():
        yield _tried(f"checkpoints.faces.{role}", lambda r=role, p=pack: _pack(r, p))  # type: ignore[misc]
    yield _tried("prompts", lambda: _prompts(world.generate.prompts))
    yield _tried("protocol", lambda: _protocol(read_evaluate(world.evaluate)))
    for folder in (RUNS, STATE):
        yield _tried(str(folder), lambda f=folder: _folder(f))  # type: ignore[misc]
    yield _store(params)
