"""Portraits from a list of addresses and checksums: finished files are kept, and every file is whole or missing."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from PIL import Image

from lookahead.artifacts import atomic, digest_file
from lookahead.errors import InputError
from lookahead.portraits import FORMATS

_COLUMNS = {"url", "sha256"}  # and `person`, where somebody has several photos
_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "MPO": ".jpg"}
_TIMEOUT = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Photo:
    """One line of the list: its number in the file, the photo's address and checksum, and whose it is."""

    line: int
    url: str
    sha256: str
    person: str

    def fault(self) -> str:
        """What is wrong with the line; nothing if it is valid."""
        patterns = (
            (self.url, r"https?://.*", "http or https address"),
            (self.sha256, r"[0-9a-f]{64}", "SHA-256 of 64 hexadecimal digits"),
            (self.person, r"[\w-]+", "name for a folder (letters, digits, - and _)"),
        )
        wrong = [(text, kind) for text, pattern, kind in patterns if not re.fullmatch(pattern, text)]
        return "; ".join(f"{text!r} is no {kind}" for text, kind in wrong)


def read_list(path: Path) -> list[Photo]:
    """Read a list: CSV with the columns `url`, `sha256` and, if wanted, `person`; without it every line is somebody."""
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the list {path} cannot be read ({error}): give a CSV file with url,sha256") from None
    if not rows or not _COLUMNS <= set(rows[0]) <= _COLUMNS | {"person"}:
        raise InputError(f"the list {path} has to begin with url,sha256 or person,url,sha256, and hold a photo a line")
    photos = [
        Photo(number + 2, row["url"] or "", (row["sha256"] or "").lower(), row.get("person", f"{number:03d}") or "")
        for number, row in enumerate(rows)
    ]
    wrong = [f"  line {photo.line}: {fault}" for photo in photos if (fault := photo.fault())]
    if wrong:
        raise InputError(f"the list {path} is not valid:\n" + "\n".join(wrong))
    return photos


def fetch(photos: list[Photo], out: Path, say: Callable[[str], None]) -> None:
    """Fetch what is missing of `<out>/<person>/<number>.<suffix>`: an `InputError` names all lines that fail."""
    faults, counts = list[str](), dict[str, int]()
    for photo in photos:
        number = counts[photo.person] = counts.get(photo.person, -1) + 1
        stem = out / photo.person / str(number)
        if any(digest_file(path) == photo.sha256 for path in stem.parent.glob(f"{stem.name}.*")):
            continue
        try:
            with urlopen(Request(photo.url, headers={"User-Agent": "lookahead"}), timeout=_TIMEOUT) as answer:
                content: bytes = answer.read()
            found = hashlib.sha256(content).hexdigest()
            if found != photo.sha256:
                raise ValueError(f"its SHA-256 is {found}, not {photo.sha256}")
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                image.verify()
                suffix = _SUFFIXES[image.format or ""]
            with atomic(stem.with_suffix(suffix)) as path:
                path.write_bytes(content)
            say(f"{stem.parent.name}/{stem.name} {photo.url}")
        except (OSError, HTTPException, ValueError) as error:
            faults.append(f"  line {photo.line}: {photo.url}: {error}")
    if faults:
        raise InputError("\n".join([f"{len(faults)} of {len(photos)} photos failed; correct and run again:", *faults]))
