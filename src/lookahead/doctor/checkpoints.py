"""Every checkpoint of a world: complete, or missing, with its licence and how to get it."""

from __future__ import annotations

from collections.abc import Iterator

import onnxruntime

from lookahead.config import Checkpoints
from lookahead.doctor.catalogue import gigabytes, licence
from lookahead.doctor.finding import Finding, tried
from lookahead.errors import InputError
from lookahead.world.hub import Part, parts


def _check_onnx(part: Part) -> None:
    for path in sorted(part.folder().glob("*.onnx")):
        try:
            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no common class of exceptions
            raise InputError(f"{path} is damaged ({str(error)[:80]}): download it again, or `make miniature`") from None


def _finding(part: Part, command: str) -> Finding:
    name = f"checkpoints.{part.name}"
    if part.kind != "folder" and part.missing():
        size = gigabytes({part.source})
        return Finding("bad", name, f"{part.source}: missing, about {size:.2g} GB. {licence(part.source)}", command)
    part.check()
    _check_onnx(part)
    return Finding("ok", name, part.source if part.kind == "folder" else f"{part.source}: {licence(part.source)}", "")


def checkpoints(checkpoints: Checkpoints, world: str) -> Iterator[Finding]:
    """A finding for each part, and one that sums up what may not be used commercially."""
    command = f"`lookahead fetch --world {world}`, with a network; started again, it continues"
    found = parts(checkpoints)
    for part in found:
        yield tried(f"checkpoints.{part.name}", lambda part=part: _finding(part, command))  # type: ignore[misc]
    named = {part.source for part in found if part.kind != "folder"}
    bound = sorted(name for name in named if "NON-COMMERCIAL" in licence(name))
    if bound:
        yield Finding("odd", "licences", f"not for commercial use: {', '.join(bound)}; docs/sdxl.md names others", "")
