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
class Entry:
    """A file or folder: its name below the root, why it is skipped (empty: it is not), its path, and whose it is."""

    file: str
    reason: str
    path: Path
    identity: int = -1
    person: str = ""


def _text(name: str) -> str:
    """A file's name as text: composed as most systems do it, with bytes that are no UTF-8 replaced."""
    return normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: os.fsencode(entry.name))


def _objection(path: Path) -> str:
    """Why a file of a person's folder is not opened; nothing if it may be."""
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


def list_photos(root: Path) -> Iterator[Entry]:
    """Every entry of `<root>/<person>/`, in the order of the names, usable or not."""
    try:
        entries = _entries(root)
    except OSError as error:
        raise InputError(f"the photo folder {root} cannot be read ({error.strerror}): name another one") from None
    identity = -1
    for entry in entries:
        name, path = _text(entry.name), Path(entry.path)
        if entry.is_dir(follow_symlinks=False):
            identity += 1
            try:
                photos = [Path(photo.path) for photo in _entries(path)]
            except OSError as error:
                yield Entry(name, f"cannot be read ({error.strerror})", path)
                continue
            yield from (Entry(f"{name}/{_text(p.name)}", _objection(p), p, identity, name) for p in photos)
        elif entry.is_symlink():
            yield Entry(name, "a symbolic link: only links to files in a person's folder are followed", path)
        elif entry.name not in (CAPTIONS, NOTES):
            yield Entry(name, "in no person's folder", path)


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
        name = _text(row[0].strip().replace("\\", "/"))
        if len(row) != 2 or not row[1].strip() or len(row[1]) > _MAX_CAPTION or name in found:
            limits = f"a file without a caption so far, and its caption of 1 to {_MAX_CAPTION} letters"
            raise InputError(f"{path}, line {line}: {row!r:.80} is not {limits}")
        found[name] = " ".join(row[1].split())
    return found
