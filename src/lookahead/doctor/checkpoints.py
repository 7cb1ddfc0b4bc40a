"""Every checkpoint of a world: whole and here, or missing, with its licence and how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnxruntime

from lookahead.artifacts import files_below
from lookahead.config import Checkpoints
from lookahead.doctor.catalogue import gigabytes, licence
from lookahead.doctor.finding import Finding, tried
from lookahead.errors import InputError
from lookahead.world.hub import Part, hub_parts, named_packs, sources
from lookahead.world.packs import named_pack
from lookahead.world.sources import check_folder


def _folder(name: str, source: str) -> Finding:
    folder = source.removeprefix("local-dir:")
    check_folder(folder)
    if not files_below(Path(folder)):
        raise InputError(f"{folder} is empty: run `git checkout -- models`, or `make miniature`")
    return Finding("ok", f"checkpoints.{name}", folder, "")


def _hub(part: Part, command: str) -> Finding:
    name, repository, lacks = f"checkpoints.{part.name}", part.source.repository, part.missing()
    size = gigabytes({repository})
    told = "downloaded" if not lacks else f"{len(lacks)} of {len(part.files)} files missing, about {size:.2g} GB"
    message = f"{repository}: {told}. {licence(repository)}"
    return Finding("bad" if lacks else "ok", name, message, command)


def _whole(path: Path) -> None:
    try:
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class a reason, without a common one of its own
        raise InputError(f"{path} is damaged ({str(error)[:80]}): fetch it again, or `make miniature`") from None


def _pack(role: str, pack: str, command: str) -> Finding:
    name, folder = f"checkpoints.faces.{role}", named_pack(pack) if "/" not in pack else Path(pack)
    if folder is None:
        size = gigabytes({pack})
        return Finding("bad", name, f"the face pack {pack}: missing, about {size:.2g} GB. {licence(pack)}", command)
    if not folder.is_dir():
        raise InputError(f"the face pack {pack} does not exist: check `checkpoints.faces`, or run `make miniature`")
    for path in sorted(folder.glob("*.onnx")):
        _whole(path)
    return Finding("ok", name, str(pack) if "/" in pack else f"{pack}: downloaded. {licence(pack)}", "")


def checkpoints(parts: Checkpoints, world: str) -> Iterator[Finding]:
    """A finding for each part, and one that sums up what may not be used commercially."""
    command = f"`lookahead fetch --world {world}`, with a network; it goes on where it was"
    hub = {part.name: part for part in hub_parts(parts)}
    for name, source in sources(parts).items():
        if name in hub:
            yield tried(f"checkpoints.{name}", lambda p=hub[name]: _hub(p, command))  # type: ignore[misc]
        else:
            yield tried(f"checkpoints.{name}", lambda n=name, s=source: _folder(n, s))  # type: ignore[misc]
    packs = parts.faces.model_dump(exclude={"detection_size"})
    for role, pack in packs.items():
        yield tried(f"checkpoints.faces.{role}", lambda r=role, p=pack: _pack(r, p, command))  # type: ignore[misc]
    named = {part.source.repository for part in hub.values()} | set(named_packs(parts).values())
    bound = sorted(name for name in named if "NON-COMMERCIAL" in licence(name))
    if bound:
        yield Finding("odd", "licences", f"not for commercial use: {', '.join(bound)}; docs/sdxl.md names others", "")
