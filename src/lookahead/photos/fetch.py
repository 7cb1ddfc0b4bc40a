"""Portraits from a list of addresses and checksums: what is there already is kept, every file is whole or not there."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from PIL import Image

from lookahead.artifacts import atomic
from lookahead.errors import InputError

COLUMNS = {"url", "sha256"}  # and `person`, where somebody has several photos
_ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[\w-]+")
_PATIENCE = 60.0  # seconds without a byte


@dataclass(frozen=True)
class Photo:
    """One line of the list: its number in the file, where the photo is, what it is, and whose."""

    line: int
    url: str
    sha256: str
    person: str


def read_list(path: Path) -> list[Photo]:
    """Read a list: CSV with the columns `url`, `sha256` and, if wanted, `person`; without it every line is somebody.

    Raises:
        InputError: the file is missing or not such a table; every wrong line is named.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the list {path} cannot be read ({error}): give a CSV file with url,sha256") from None
    if not rows or not COLUMNS <= set(rows[0]) <= COLUMNS | {"person"}:
        raise InputError(f"the list {path} has to begin with url,sha256 or person,url,sha256, and hold a photo a line")
    photos = [
        Photo(number + 2, row["url"] or "", (row["sha256"] or "").lower(), row.get("person", f"{number:03d}") or "")
        for number, row in enumerate(rows)
    ]
    wrong = [f"  line {photo.line}: {fault}" for photo in photos if (fault := _fault(photo))]
    if wrong:
        raise InputError(f"the list {path} is not valid:\n" + "\n".join(wrong))
    return photos


def _fault(photo: Photo) -> str:
    if urlsplit(photo.url).scheme not in ("http", "https"):
        return f"{photo.url!r} is no http or https address"
    if not _SHA256.fullmatch(photo.sha256):
        return f"{photo.sha256!r} is no SHA-256 of 64 hexadecimal digits"
    return (
        "" if _NAME.fullmatch(photo.person) else f"{photo.person!r} is no name for a folder (letters, digits, - and _)"
    )


def fetch(photos: list[Photo], out: Path, tell: Callable[[str], None]) -> None:
    """Bring every photo to `<out>/<person>/<number>.<ending>`; started again, it fetches what is missing.

    Args:
        photos: those wanted, each person's first one being the reference.
        out: a folder of portraits.
        tell: is told of every photo that is fetched.

    Raises:
        InputError: at the end, naming every line that failed, and why; all others are there.
    """
    faults: list[str] = []
    counts: dict[str, int] = {}
    for photo in photos:
        number = counts[photo.person] = counts.get(photo.person, -1) + 1
        stem = out / photo.person / str(number)
        if any(_digest(path.read_bytes()) == photo.sha256 for path in stem.parent.glob(f"{stem.name}.*")):
            continue
        try:
            content = _download(photo)
            with atomic(stem.with_suffix(_ending(content))) as path:
                path.write_bytes(content)
            tell(f"{stem.parent.name}/{stem.name} {photo.url}")
        except (OSError, HTTPException, ValueError) as error:
            faults.append(f"  line {photo.line}: {photo.url}: {error}")
    if faults:
        failed = "\n".join(faults)
        raise InputError(f"{len(faults)} of {len(photos)} photos failed; mend these lines and run again:\n{failed}")


def _download(photo: Photo) -> bytes:
    request = Request(photo.url, headers={"User-Agent": "lookahead"})
    with urlopen(request, timeout=_PATIENCE) as answer:
        content: bytes = answer.read()
    found = _digest(content)
    if found != photo.sha256:
        raise ValueError(f"its SHA-256 is {found}, not {photo.sha256}")
    return content


def _ending(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as image:
        image.verify()
        kind = image.format or ""
    if kind not in _ENDINGS:
        raise ValueError(f"it is a picture of kind {kind}, not {', '.join(_ENDINGS)}")
    return _ENDINGS[kind]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
