"""Which files of a folder are photos of whom, and their captions; links to folders are not followed."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from lookahead.errors import InputError
from lookahead.portraits import SUFFIXES

CAPTIONS, NOTES = "captions.csv", "README.md"  # allowed besides the people's folders
_COLUMNS = ["file", "caption"]
_MAX_CAPTION = 1000  # characters; text encoders read fewer


@dataclass(frozen=True)
class Skipped:
    """A file or folder that is not used, by its name below the root, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class PhotoFile:
    """One candidate: the person's number and name, its path, and its name below the root."""

    identity: int
    person: str
    path: Path
    file: str


def _text(name: str) -> str:
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
    if path.suffix.lower() in (".heic", ".heif"):
        return "HEIC: Pillow cannot read it; export it as JPEG"
    return "" if path.suffix.lower() in SUFFIXES else f"no photo: {', '.join(SUFFIXES)} are read"


def list_photos(root: Path) -> Iterator[PhotoFile | Skipped]:
    """Every entry of `<root>/<person>/`, in the order of the names: a photo to read, or why it is not one."""
    try:
        entries = _entries(root)
    except OSError as error:
        raise InputError(f"the photo folder {root} cannot be read ({error.strerror}): name another one") from None
    identity = -1
    for entry in entries:
        name = _text(entry.name)
        if entry.is_dir(follow_symlinks=False):
            identity += 1
            try:
                found = _entries(Path(entry.path))
            except OSError as error:
                yield Skipped(name, f"cannot be read ({error.strerror})")
                continue
            for photo in found:
                file, path = f"{name}/{_text(photo.name)}", Path(photo.path)
                reason = _objection(path)
                yield Skipped(file, reason) if reason else PhotoFile(identity, name, path, file)
        elif entry.is_symlink():
            yield Skipped(name, "a symbolic link: only links to files in a person's folder are followed")
        elif entry.name not in (CAPTIONS, NOTES):
            yield Skipped(name, "in no person's folder")


def read_captions(root: Path) -> dict[str, str]:
    """Captions by `<person>/<file>`; none if there is no `captions.csv`."""
    path, found = root / CAPTIONS, dict[str, str]()
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}): save it as CSV in UTF-8") from None
    if [name.strip().lower() for name in header] != _COLUMNS:
        raise InputError(f"{path} begins with {header!r:.80}: its first line has to be {','.join(_COLUMNS)}")
    for line, row in enumerate(rows, start=2):
        if len(row) != len(_COLUMNS) or not row[1].strip() or len(row[1]) > _MAX_CAPTION:
            raise InputError(
                f"{path}, line {line}: {row!r:.80} is no file and its caption of 1 to {_MAX_CAPTION} letters"
            )
        name = _text(row[0].strip().replace("\\", "/"))
        if name in found:
            raise InputError(f"{path}, line {line}: {name} has a caption already: remove one of them")
        found[name] = " ".join(row[1].split())
    return found
