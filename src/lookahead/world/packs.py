"""Where insightface's packs lie: folders, or names that insightface keeps below the home folder."""

from __future__ import annotations

from pathlib import Path

from lookahead.errors import InputError


def named_pack(pack: str) -> Path | None:
    """Where insightface keeps a pack that is given by its name; None if it is not there. Asks no network."""
    kept = Path.home() / ".insightface" / "models" / pack
    inner = kept / pack  # the archive of antelopev2 holds a folder of its own name
    return next((folder for folder in (kept, inner) if any(folder.glob("*.onnx"))), None)


def pack_folder(pack: str) -> Path:
    """The folder of an insightface pack: the path itself, or where insightface keeps the pack so named.

    Raises:
        InputError: there is no such folder, or the pack has not been fetched.
    """
    if Path(pack).is_dir():
        return Path(pack)
    if "/" in pack:
        raise InputError(f"the face pack {pack} does not exist: check `checkpoints.faces`, or run `make miniature`")
    kept = named_pack(pack)
    if kept is None:
        raise InputError(f"the face pack {pack} is not here: `lookahead fetch` downloads a world's checkpoints")
    return kept
