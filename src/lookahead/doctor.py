"""Checks before a run starts: would a reproduction run here, and if not, what would mend it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import onnxruntime
import psutil
import torch

from lookahead.artifacts import STATE, atomic
from lookahead.config import Checkpoints, Params, World
from lookahead.dataset.prompts import read_prompts
from lookahead.errors import InputError
from lookahead.portraits import read_people, read_photo
from lookahead.stage import RUNS, cores
from lookahead.tracking import connect, store_uri
from lookahead.world import device
from lookahead.world.hub import Part, parts

_RAIL, _MIT = "CreativeML Open RAIL++-M: commercial use, but for a list of forbidden uses", "MIT: commercial use"
_PACK = "insightface models: NON-COMMERCIAL research only"
KNOWN = {  # licences in plain words (docs/sdxl.md), and GB of the files that are opened, at half precision
    "stabilityai/stable-diffusion-xl-base-1.0": (_RAIL, 6.8),
    "madebyollin/sdxl-vae-fp16-fix": (_MIT, 0.3),
    "madebyollin/taesdxl": (_MIT, 0.01),
    "latent-consistency/lcm-lora-sdxl": (_RAIL, 0.4),
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (
        "CreativeML Open RAIL-M: commercial use, but for a list of forbidden uses",
        2.1,
    ),
    "stabilityai/sd-vae-ft-mse": (_MIT, 0.3),
    "madebyollin/taesd": (_MIT, 0.01),
    "latent-consistency/lcm-lora-sdv1-5": (_RAIL, 0.1),
    "stabilityai/sdxl-turbo": ("sai-nc-community: NON-COMMERCIAL, unless Stability AI agrees otherwise", 6.9),
    "h94/IP-Adapter": ("Apache-2.0: commercial use", 3.4),
    "timm/vit_large_patch14_clip_224.openai": (_MIT, 1.7),
    "buffalo_l": (_PACK, 0.3),
    "antelopev2": (_PACK, 0.4),
    "buffalo_s": (_PACK, 0.2),
}
OUTPUTS = 3.0  # GB of the miniature's outputs, once in `runs` and once in DVC's cache
PNG_BYTES = 1.5  # a pixel of the generator's pictures; a rule of thumb
MEMORY, GPU_MEMORY = 8.0, 24.0  # GB: the miniature; training SDXL at batch size 4 with checkpointing (docs/sdxl.md)
TIMEOUT = 3.0  # seconds


class Finding(NamedTuple):
    """`bad` stops a run, `note` need not; `mend` says what to do about what is bad."""

    state: Literal["ok", "note", "bad"]
    subject: str
    message: str
    mend: str = ""


def tried(subject: str, check: Callable[[], Finding]) -> Finding:
    """What a check found; one that refuses its input is bad, and its message says what to do."""
    try:
        return check()
    except InputError as error:
        return Finding("bad", subject, str(error), str(error))


def known(source: str) -> tuple[str, float]:
    """A checkpoint's licence and its GB; nothing is known of others, such as folders."""
    return KNOWN.get(source, ("licence not known here: read its page", 0.0))


def machine(world: World) -> Iterator[Finding]:
    """Processor, memory and GPU; half precision needs one, as it is slower than float32 on most CPUs."""
    memory, needed = psutil.virtual_memory().total / 1e9, MEMORY + 2 * known(world.checkpoints.base.split("@")[0])[1]
    message = f"Python {platform.python_version()}, {cores()} cores, {memory:.0f} GB of memory ({needed:.0f} wanted)"
    yield Finding("ok" if memory >= needed * 0.95 else "note", "machine", message)
    half = world.checkpoints.precision != "float32"
    if device().type == "cuda":
        gpu = torch.cuda.get_device_properties(0)
        small = half and gpu.total_memory / 1e9 < GPU_MEMORY * 0.95
        yield Finding("note" if small else "ok", "GPU", f"{gpu.name}, {gpu.total_memory / 1e9:.0f} GB")
    else:
        message = f"none that torch {torch.__version__} sees;"
        mend = "run on a machine with an NVIDIA GPU and a CUDA build of torch, or in a world for the CPU"
        if world.checkpoints.precision == "float32":
            yield Finding("ok", "GPU", f"{message} this world runs on the CPU")
        elif world.checkpoints.precision == "auto":
            yield Finding("note", "GPU", f"{message} a CPU draws in minutes, but does not train this world")
        else:
            yield Finding("bad", "GPU", f"{message} this world needs one", mend)


def installation() -> Iterator[Finding]:
    """The packages, against the tested versions; the repository; and the Python that DVC would use."""
    installed, pins = {one.name.lower(): one.version for one in distributions()}, Path("constraints.txt")
    lines = pins.read_text(encoding="utf-8").splitlines() if pins.is_file() else []
    pairs = [line.split(";")[0].strip().lower().partition("==") for line in lines if "==" in line and line[0] != "#"]
    other = [f"{name} {installed[name]} (tested: {pin})" for name, _, pin in pairs if installed.get(name, pin) != pin]
    message = f"not the tested ones: {', '.join(other)}; `make install` mends it" if other else "the tested versions"
    yield Finding("note" if other else "ok", "packages", message)
    cloned = all(Path(path).exists() for path in ("dvc.yaml", ".dvc", os.environ.get("DVC_ROOT", ".git")))
    message = "a clone, from its root" if cloned else "no clone here: DVC needs a repository's root, with .git and .dvc"
    yield Finding("ok" if cloned else "bad", "repository", message, "clone the repository and start in its root")
    python = shutil.which("python") or "none"
    same = Path(python).parent.resolve() == Path(sys.executable).parent.resolve()
    message = python if same else f"`dvc repro` would use {python}: use `make repro`, or `source .venv/bin/activate`"
    yield Finding("ok" if same else "note", "python", message)


def _checkpoint(part: Part, command: str) -> Finding:
    name, (terms, size) = f"checkpoints.{part.name}", known(part.source)
    if part.kind != "folder" and part.missing():
        return Finding("bad", name, f"{part.source}: missing, {size:.2g} GB. {terms}", command)
    part.check()
    for path in sorted(part.folder().glob("*.onnx")):
        try:
            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no class in common
            raise InputError(f"{path} is damaged ({str(error)[:80]}): fetch it again, or `make miniature`") from None
    return Finding("ok", name, part.source if part.kind == "folder" else f"{part.source}. {terms}")


def checkpoints(of: Checkpoints, world: str) -> Iterator[Finding]:
    """A finding for each part, and a note on those that may not be used commercially."""
    command = f"`lookahead fetch --world {world}`, with a network; started again, it continues"
    for part in parts(of):
        yield tried(f"checkpoints.{part.name}", partial(_checkpoint, part, command))
    bound = sorted({part.source for part in parts(of) if "NON-COMMERCIAL" in known(part.source)[0]})
    if bound:
        yield Finding("note", "licences", f"not for commercial use: {', '.join(bound)}; docs/sdxl.md names others")


def inputs(world: World) -> Finding:
    """The prompts, the protocol and its people's portraits."""
    settings = world.evaluation()
    for path in {world.generate.prompts, settings.prompts}:
        read_prompts(path)
    people = read_people(Path(settings.portraits), settings.people)
    for person in people:
        read_photo(person.reference)
    return Finding("ok", "protocol", f"protocols/{world.name}.yaml: {len(people)} people of {settings.portraits}")


def disk(world: World) -> Finding:
    """Whether the folders can be written to, and outputs and missing checkpoints find room."""
    for folder in (RUNS, STATE):
        with atomic(folder / ".doctor") as probe:
            probe.write_text("x", encoding="utf-8")
        (folder / ".doctor").unlink()
    drawn = world.generate.people * (world.generate.photos + world.generate.stylised)
    outputs = max(OUTPUTS, 2 * drawn * world.checkpoints.resolution**2 * PNG_BYTES / 1e9)
    missing = {part.source for part in parts(world.checkpoints) if part.kind != "folder" and part.missing()}
    free, size = shutil.disk_usage(RUNS).free / 1e9, sum(known(source)[1] for source in missing)
    message = f"{free:.0f} GB free; about {outputs:.0f} for outputs, {size:.0f} for checkpoints still to be downloaded"
    mend = "free some space, or draw fewer people (`generate.people` in params.yaml)"
    return Finding("ok" if free >= outputs + size else "bad", "disk", message, mend)


def tracking(params: Params) -> Finding:
    """MLflow's store; without one, runs are not tracked, but run."""
    if not params.tracking.enabled:
        return Finding("note", "tracking", "switched off (`tracking.enabled`)")
    try:
        connect(params.tracking)
    except Exception as error:  # MLflow's, SQLAlchemy's, the operating system's
        message = f"{store_uri(params.tracking)} cannot be opened, so no run is tracked ({error!s:.120})"
        return Finding("note", "tracking", f"{message}: start it, or change `tracking.uri` (docs/scale.md)")
    return Finding("ok", "tracking", store_uri(params.tracking))


def database(uri: str) -> Finding:
    """Whether something answers at the address of a shared search; its password is not shown."""
    address, mend = urlsplit(uri), "start PostgreSQL there, or check `--storage` (docs/scale.md)"
    try:
        socket.create_connection((address.hostname or "", address.port or 5432), TIMEOUT).close()
    except OSError as error:
        return Finding("bad", "search storage", f"{address.hostname}:{address.port} does not answer ({error})", mend)
    return Finding("ok", "search storage", uri.replace(f":{address.password}@", ":***@"))


def examine(params: Params, world_name: str, storage: str | None) -> Iterator[Finding]:
    """Check the machine, the packages, what a world's parameters name, and a shared search's database, if any."""
    world = params.of(world_name)
    yield from machine(world)
    yield from installation()
    yield from checkpoints(world.checkpoints, world_name)
    yield tried("protocol", lambda: inputs(world))
    yield tried("disk", lambda: disk(world))
    yield tracking(params)
    if storage is not None:
        yield database(storage)
