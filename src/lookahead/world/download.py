"""Downloads what a world needs: into the hub's cache and insightface's folder, each file whole or not there."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from insightface.utils import ensure_available

from lookahead.config import Checkpoints
from lookahead.errors import InputError
from lookahead.world.hub import Part, cached, hub_parts, named_packs
from lookahead.world.packs import named_pack

Tell = Callable[[str], None]
_SHA256 = re.compile(r"[0-9a-f]{64}")


def damaged(path: Path) -> bool:
    """Whether a file of the hub's cache differs from its SHA-256, by which the cache names large files."""
    blob = path.resolve()
    if not _SHA256.fullmatch(blob.name):
        return False  # a small file, which the hub names by another digest
    with blob.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() != blob.name


def _bring(part: Part, lacks: list[str]) -> None:
    """Download a part's missing files; one that came out wrong is removed, so that the next run gets it again."""
    snapshot_download(part.source.repository, revision=part.source.revision, allow_patterns=lacks)
    for file in lacks:
        path = cached(part.source, file)
        if path is None:
            raise ValueError(f"the repository has no {file}")
        if damaged(path):
            path.resolve().unlink()
            path.unlink()
            raise ValueError(f"{file} differs from its SHA-256, and was removed")


def _bring_pack(pack: str) -> None:
    folder = ensure_available("models", pack)
    if named_pack(pack) is None:
        raise ValueError(f"{folder} holds no .onnx files: remove the folder")


def _jobs(checkpoints: Checkpoints) -> Iterator[tuple[str, str, Callable[[], None] | None]]:
    """What each part is called, what it is, and how to bring it, or None if it is here."""
    for part in hub_parts(checkpoints):
        lacks = part.missing()
        bring = partial(_bring, part, lacks) if lacks else None
        yield f"checkpoints.{part.name}", part.source.repository, bring
    for role, pack in named_packs(checkpoints).items():
        here = named_pack(pack) is not None
        yield f"checkpoints.faces.{role}", f"the face pack {pack}", None if here else partial(_bring_pack, pack)


def download(checkpoints: Checkpoints, tell: Tell) -> None:
    """Bring every part that is missing; started again, it goes on where it was, within a file too.

    Raises:
        InputError: the hub is switched off, or parts failed: each is named with its reason, all others are here.
    """
    faults = []
    for name, what, bring in _jobs(checkpoints):
        if bring is None:
            tell(f"{name}: {what} is here")
            continue
        if constants.is_offline_mode():
            raise InputError("HF_HUB_OFFLINE is set: start again with HF_HUB_OFFLINE=0, where there is a network")
        tell(f"{name}: {what} ...")
        try:
            bring()
        except Exception as error:  # the hub, its transport and insightface share no class
            reason = str(error).strip().splitlines() or [type(error).__name__]
            faults.append(f"  {name}: {what}: {reason[0]:.300}")
    if faults:
        raise InputError(f"{len(faults)} parts failed; run again to go on:\n" + "\n".join(faults))
