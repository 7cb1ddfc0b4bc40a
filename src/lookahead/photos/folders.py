"""Which files of a folder are photos of whom, without following links to folders or opening what is no file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from lookahead.errors import InputError

CAPTIONS, NOTES = "captions.csv", "README.md"  # beside the people's folders
ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
_NO_READER = (".heic", ".heif")


@dataclass(frozen=True)
class Skipped:
    """A file or folder that is not used, by its name below the root, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class PhotoFile:
    """One candidate: the person's number and name, where it lies, and its name below the root."""

    identity: int
    person: str
    path: Path
    file: str


def shown(name: str) -> str:
    """A file's name as text: composed as most systems do it, with bytes that are no UTF-8 replaced."""
    return normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: os.fsencode(entry.name))


def _objection(path: Path) -> str:
    """Why an entry of a person's folder is not opened; nothing if it may be."""
    try:
        mode = path.stat().st_mode  # of what a link points to: DVC links files
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if stat.S_ISDIR(mode):
        return "a folder inside a person's folder"
    if not stat.S_ISREG(mode):
        return "no regular file"  # to open a pipe would wait for ever
    if path.suffix.lower() in _NO_READER:
        return "HEIC: Pillow cannot read it; export it as JPEG"
    return "" if path.suffix.lower() in ENDINGS else f"no photo: {', '.join(ENDINGS)} are read"


def _person(identity: int, folder: Path) -> Iterator[PhotoFile | Skipped]:
    name = shown(folder.name)
    try:
        entries = _entries(folder)
    except OSError as error:
        yield Skipped(name, f"cannot be read ({error.strerror})")
        return
    for entry in entries:
        file, path = f"{name}/{shown(entry.name)}", Path(entry.path)
        reason = _objection(path)
        yield Skipped(file, reason) if reason else PhotoFile(identity, name, path, file)


def list_photos(root: Path) -> Iterator[PhotoFile | Skipped]:
    """Every entry of `<root>/<person>/`, in the order of the names: a photo to read, or why it is not one.

    Raises:
        InputError: the root is no folder, or cannot be read.
    """
    try:
        entries = _entries(root)
    except OSError as error:
        raise InputError(f"the photo folder {root} cannot be read ({error.strerror}): name another one") from None
    identity = 0
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _person(identity, Path(entry.path))
            identity += 1
        elif entry.is_symlink():
            yield Skipped(shown(entry.name), "a symbolic link: only links to files in a person's folder are followed")
        elif entry.name not in (CAPTIONS, NOTES):
            yield Skipped(shown(entry.name), "in no person's folder")
