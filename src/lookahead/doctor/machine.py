"""The machine, its disk, the packages and the repository."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from lookahead.artifacts import atomic
from lookahead.config import World
from lookahead.doctor.catalogue import gigabytes
from lookahead.doctor.finding import Finding
from lookahead.stage import cores
from lookahead.world import device
from lookahead.world.hub import parts

OUTPUTS = 3.0  # GB: what the miniature's outputs take, once in `runs` and once in DVC's cache
PNG_BYTES = 1.5  # a pixel, of what the few-step generator draws; a rule of thumb
MEMORY = 8.0  # GB: the miniature
GPU_MEMORY = 24.0  # GB: the aim for training SDXL at batch 4 with checkpointing (docs/sdxl.md)


def _needs_gpu(world: World) -> bool:
    return world.checkpoints.precision != "float32"  # half precision is slower than float32 on most CPUs


def machine(world: World) -> Iterator[Finding]:
    """Processor, memory and GPU."""
    memory, needed = psutil.virtual_memory().total / 1e9, MEMORY + gigabytes({world.checkpoints.base}) * 2
    told = f"Python {platform.python_version()}, {cores()} cores"
    yield Finding("ok", "machine", told, "")
    enough = memory >= needed * 0.95
    told = f"{memory:.0f} GB, about {needed:.0f} wanted"
    yield Finding("ok" if enough else "odd", "memory", told, "")
    yield _gpu(_needs_gpu(world))


def _gpu(needed: bool) -> Finding:
    if device().type == "cuda":
        there = torch.cuda.get_device_properties(0)
        size = there.total_memory / 1e9
        state = "odd" if needed and size < GPU_MEMORY * 0.95 else "ok"
        return Finding(state, "GPU", f"{there.name}, {size:.0f} GB", "")  # type: ignore[arg-type]
    if not needed:
        return Finding("ok", "GPU", "none; this world runs on the CPU", "")
    mend = "run on a machine with an NVIDIA GPU and a CUDA build of torch, or in a world for the CPU"
    return Finding("bad", "GPU", f"none that torch {torch.__version__} sees; this world needs one", mend)


def _pins(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.partition("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip(): pinned.split(";")[0].strip() for name, _, pinned in pairs}


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def packages() -> Iterator[Finding]:
    """Which installed versions differ from the tested ones."""
    pins = _pins(Path("constraints.txt"))
    found = {name: _installed(name) for name in pins}
    other = [f"{n} {found[n]} (tested: {pin})" for n, pin in pins.items() if found[n] not in (pin, "missing")]
    told = f"differ from the tested set: {', '.join(other)}; `make install` mends it" if other else "the tested set"
    yield Finding("odd" if other else "ok", "packages", told, "")


def repository() -> Iterator[Finding]:
    """Whether this is a clone's root, and which Python DVC would use."""
    there = Path("dvc.yaml").is_file() and Path(".dvc").is_dir() and Path(os.environ.get("DVC_ROOT", ".git")).exists()
    told = "a clone, from its root" if there else "no clone here: DVC needs the repository's root with .git and .dvc"
    yield Finding("ok" if there else "bad", "repository", told, "clone the repository and start in its root")
    found = shutil.which("python") or "none"
    same = Path(found).parent.resolve() == Path(sys.executable).parent.resolve()
    told = found if same else f"`dvc repro` would use {found}: `source .venv/bin/activate` first, or use `make repro`"
    yield Finding("ok" if same else "odd", "python", told, "")


def outputs(world: World) -> float:
    """Gigabytes that a reproduction's outputs take, roughly: every picture, in `runs` and in DVC's cache."""
    drawn = world.generate.people * (world.generate.photos + world.generate.stylised)
    return max(OUTPUTS, 2 * drawn * world.checkpoints.resolution**2 * PNG_BYTES / 1e9)


def disk(world: World, path: Path) -> Finding:
    """Whether outputs and missing checkpoints find room."""
    path.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path).free / 1e9
    needed = outputs(world)
    lacking = gigabytes({part.source for part in parts(world.checkpoints) if part.kind != "folder" and part.missing()})
    told = f"{free:.0f} GB free; about {needed:.0f} for outputs, {lacking:.0f} for checkpoints still to be downloaded"
    mend = "free some space, or draw fewer people (`generate.people` in params.yaml)"
    return Finding("ok" if free >= needed + lacking else "bad", "disk", told, mend)


def folder(path: Path) -> Finding:
    """Whether a folder can be written to."""
    with atomic(path / ".doctor") as probe:
        probe.write_text("x", encoding="utf-8")
    (path / ".doctor").unlink()
    return Finding("ok", f"folder {path}", "can be written to", "")
