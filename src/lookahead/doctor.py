"""Checks before a run starts: would a reproduction run here, and if not, what would mend it."""

from __future__ import annotations

import platform
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import psutil
import torch

from lookahead.config import Params, World
from lookahead.dataset.prompts import read_prompts
from lookahead.errors import InputError
from lookahead.plan import duration, estimates, stages
from lookahead.portraits import read_people, read_photo
from lookahead.stage import cores
from lookahead.tracking import connect, store_uri
from lookahead.world import device, face_providers
from lookahead.world.hub import Part, downloads, parts
from lookahead.world.published import GB, LICENCES

OUTPUTS = 3.0  # GB of the miniature's outputs and stores, at least
MEMORY = 8.0  # GB: the miniature
TIMEOUT = 3.0  # seconds


class Finding(NamedTuple):
    """`bad` stops a run, `note` need not; `mend` says what to do about what is bad."""

    state: Literal["ok", "note", "bad"]
    message: str
    mend: str = ""


def examine(params: Params, world: World, storage: str | None) -> Iterator[tuple[str, Finding]]:
    """Check the machine, the packages, what a world's parameters name, and a shared search's database, if any."""
    checks: dict[str, Callable[[], Finding]] = {"machine": partial(machine, world), "GPU": partial(gpu, world)}
    checks |= {"packages": packages, "python": python}
    found = downloads(world.checkpoints) + [part for part in parts(world.checkpoints) if part.kind == "folder"]
    checks |= {f"checkpoints.{part.name}": partial(checkpoint, part, world.name) for part in found}
    checks |= {"licences": partial(licences, found), "face packs": faces}
    checks |= {"protocol": partial(protocol, world), "disk": partial(disk, world), "time": partial(work, world)}
    checks |= {"tracking": partial(tracking, params)}
    checks |= {} if storage is None else {"search storage": partial(database, storage)}
    for subject, check in checks.items():
        try:
            yield subject, check()
        except InputError as error:  # its message says what to do
            yield subject, Finding("bad", str(error), str(error))


def machine(world: World) -> Finding:
    """Processor and memory."""
    memory, needed = psutil.virtual_memory().total / 1e9, MEMORY + 2 * GB.get(world.checkpoints.base.split("@")[0], 0.0)
    message = f"Python {platform.python_version()}, {cores()} cores, {memory:.0f} GB of memory ({needed:.0f} wanted)"
    return Finding("ok" if memory >= needed * 0.95 else "note", message)


def gpu(world: World) -> Finding:
    """The GPU, and whether every stage finds room in its memory; a CPU serves where it computes in float32."""
    if device().type == "cuda":
        found = torch.cuda.get_device_properties(0)
        free, needs = found.total_memory / 1e9, {each.stage.name: each.memory or 0.0 for each in estimates(world)}
        small = [f"{name} ({needed:.0f} GB)" for name, needed in needs.items() if needed > free]
        more = (
            f"; too small for {', '.join(small)}: a smaller batch_size, or another world (docs/sdxl.md)"
            if small
            else ""
        )
        return Finding("note" if small else "ok", f"{found.name}, {free:.0f} GB{more}")
    message = f"none that torch {torch.__version__} sees;"
    mend = "run on a machine with an NVIDIA GPU and a CUDA build of torch, or in a world for the CPU"
    if world.checkpoints.precision == "auto":
        return Finding("note", f"{message} a CPU draws slowly, and is too slow to train this world")
    if world.checkpoints.precision != "float32":
        return Finding("bad", f"{message} this world needs one", mend)
    return Finding("ok", f"{message} this world runs on the CPU")


def work(world: World) -> Finding:
    """What all stages will take."""
    found = estimates(world)
    assumed = any(each.basis == "assumed" for each in found)
    note = " if it reaches the assumed rate" if assumed else ", by the rates at which stages ran here"
    return Finding("ok", f"{duration(sum(each.hours for each in found))}{note}; stage by stage: `lookahead plan`")


def packages() -> Finding:
    """The installed packages against the tested versions."""
    installed, pins = {one.name.lower(): one.version for one in distributions()}, Path("constraints.txt")
    found = re.findall(
        r"^([\w.-]+)==([^\s;]+)", pins.read_text(encoding="utf-8") if pins.is_file() else "", re.MULTILINE
    )
    other = [f"{name} {installed[name]} (tested: {pin})" for name, pin in found if installed.get(name, pin) != pin]
    message = f"not the tested ones: {', '.join(other)}; `make install` mends it" if other else "the tested versions"
    return Finding("note" if other else "ok", message)


def python() -> Finding:
    """The Python that DVC would use."""
    found = shutil.which("python") or "none"
    same = Path(found).parent.resolve() == Path(sys.executable).parent.resolve()
    message = found if same else f"`dvc repro` would use {found}: use `make repro`, or `source .venv/bin/activate`"
    return Finding("ok" if same else "note", message)


def checkpoint(part: Part, world: str) -> Finding:
    """Whether a part is complete and can be opened, and its licence."""
    terms = LICENCES.get(part.source, "licence not known here: read its page")
    if part.kind != "folder" and part.missing():
        mend = f"`lookahead fetch --world {world}`, with a network; started again, it keeps whole files"
        return Finding("bad", f"{part.source}: missing, {part.size:.2g} GB. {terms}", mend)
    part.check(world=world)
    return Finding("ok", part.source if part.kind == "folder" else f"{part.source}. {terms}")


def licences(found: Sequence[Part]) -> Finding:
    """The parts that may not be used commercially."""
    bound = [part.source for part in found if "NON-COMMERCIAL" in LICENCES.get(part.source, "")]
    if not bound:
        return Finding("ok", "no part is known to forbid commercial use")
    return Finding("note", f"not for commercial use: {', '.join(bound)}; what to take instead: docs/sdxl.md")


def faces() -> Finding:
    """Where face packs run, which check every picture that is drawn."""
    if device().type != "cuda" or len(face_providers()) > 1:
        return Finding("ok", f"run by {face_providers()[0]}")
    mend = "`pip uninstall onnxruntime`, then `pip install onnxruntime-gpu`"
    return Finding("note", f"run on the CPU, as this onnxruntime has no CUDA: {mend}")


def protocol(world: World) -> Finding:
    """The prompts, the protocol and its people's portraits."""
    settings = world.evaluation()
    for path in {world.generate.prompts, settings.prompts}:
        read_prompts(path)
    if settings.invented:
        missing = f"no portraits in {world.protocol().portraits}: the evaluation will be of invented people"
        return Finding("note", f"{missing} who are held out of the training")
    people = read_people(Path(settings.portraits), settings.people)
    for person in people:
        read_photo(person.reference)
    return Finding("ok", f"protocols/{world.name}.yaml: {len(people)} people of {settings.portraits}")


def disk(world: World) -> Finding:
    """Whether outputs and missing checkpoints find room."""
    outputs = max(OUTPUTS, 2 * sum(stage.size for stage in stages(world)) / 1e9)  # in `runs` and in DVC's cache
    size = sum(part.size for part in downloads(world.checkpoints) if part.missing())
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    message = f"{free:.0f} GB free; about {outputs:.0f} for outputs, {size:.0f} for checkpoints still to be downloaded"
    mend = "free some space, or draw fewer people (`generate.people` in params.yaml)"
    return Finding("ok" if free >= outputs + size else "bad", message, mend)


def tracking(params: Params) -> Finding:
    """MLflow's store; without one, runs are not tracked, but run."""
    if not params.tracking.enabled:
        return Finding("note", "switched off (`tracking.enabled`)")
    try:
        connect(params.tracking)
    except Exception as error:  # MLflow's, SQLAlchemy's, the operating system's
        message = f"{store_uri(params.tracking)} cannot be opened, so no run is tracked ({error!s:.120})"
        return Finding("note", f"{message}: start it, or change `tracking.uri` (docs/scale.md)")
    return Finding("ok", store_uri(params.tracking))


def database(uri: str) -> Finding:
    """Whether something answers at the address of a shared search; its password is not shown."""
    address, mend = urlsplit(uri), "start PostgreSQL there, or check `--storage` (docs/scale.md)"
    try:
        socket.create_connection((address.hostname or "", address.port or 5432), TIMEOUT).close()
    except OSError as error:
        return Finding("bad", f"{address.hostname}:{address.port} does not answer ({error})", mend)
    return Finding("ok", uri.replace(f":{address.password}@", ":***@"))
