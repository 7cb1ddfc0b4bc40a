"""Checkpoint sources, folders or hub ids: whole, truncated, missing, and one message for whatever is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lookahead.errors import InputError

_HUB = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[0-9a-f]{40}))?(:(?P<variant>\w+))?")


@dataclass(frozen=True)
class HubSource:
    """`owner/name[@revision][:variant]`: a repository of the hub, a commit, and which of its weights, such as fp16."""

    repository: str
    revision: str | None
    variant: str | None


def hub_source(source: str) -> HubSource | None:
    """What a source of the parameters names on the hub; None for a folder, also for one that is misspelt."""
    found = None if Path(source).is_dir() else _HUB.fullmatch(source)
    if found is None or Path(source).parent.is_dir():
        return None
    return HubSource(found["repository"], found["revision"], found["variant"])


def check_weights(path: Path) -> None:
    """Compare a safetensors file's length with its header.

    Raises:
        InputError: the file is truncated or no safetensors file.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < size else None
        ends = [entry["data_offsets"][1] for name, entry in (header or {}).items() if name != "__metadata__"]
        whole = header is not None and size == 8 + length + max(ends, default=0)
    except (ValueError, TypeError, KeyError):
        whole = False
    if not whole:
        raise InputError(
            f"{path} is truncated or damaged ({size} bytes): fetch it again, or rebuild it (`make miniature`)"
        )


def check_folder(source: str) -> None:
    """Check every safetensors file below a folder; of a hub id, only its shape.

    Raises:
        InputError: a file is truncated, or the source is neither a folder nor shaped like a hub id.
    """
    folder = Path(source)
    if folder.is_dir():
        for path in sorted(folder.rglob("*.safetensors")):
            check_weights(path)
        return
    if hub_source(source) is None:
        raise InputError(
            f"{source} is neither a folder here nor a hub id: check `checkpoints`, or run `make miniature`"
        )


@contextmanager
def opening(part: str, source: str) -> Iterator[None]:
    """Turn whatever a library raises on a bad checkpoint into one message: each has exceptions of its own."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"the {part} cannot be opened from {source}: {reason[0]:.300} (check `checkpoints` in params.yaml)"
        ) from error
