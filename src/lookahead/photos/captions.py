"""Captions of own photos: a CSV file with the columns `file` and `caption`."""

from __future__ import annotations

import csv
from pathlib import Path

from lookahead.dataset.prompts import Prompts
from lookahead.errors import InputError
from lookahead.photos.folders import CAPTIONS, shown

COLUMNS = ["file", "caption"]
LONGEST = 1000  # characters; text encoders read fewer


def _checked(path: Path, rows: list[list[str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        if len(row) != len(COLUMNS) or not row[1].strip() or len(row[1]) > LONGEST:
            raise InputError(f"{path}, line {number}: {row!r:.80} is no file and its caption of 1 to {LONGEST} letters")
        file = shown(row[0].strip().replace("\\", "/"))
        if file in found:
            raise InputError(f"{path}, line {number}: {file} has a caption already: remove one of them")
        found[file] = " ".join(row[1].split())
    return found


def read_captions(root: Path) -> dict[str, str]:
    """Captions by `<person>/<file>`; none if there is no `captions.csv`.

    Raises:
        InputError: it is no CSV file in UTF-8 with the two columns, or names a file twice.
    """
    path = root / CAPTIONS
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}): save it as CSV in UTF-8") from None
    if [name.strip().lower() for name in header] != COLUMNS:
        raise InputError(f"{path} begins with {header!r:.80}: its first line has to be {','.join(COLUMNS)}")
    return _checked(path, rows)


def plain_caption(prompts: Prompts) -> str:
    """The caption of a photo that has none: a plain photo of no one in particular, nowhere in particular."""
    text = prompts.template.format(style=prompts.styles[prompts.plain], subject=prompts.nobody, scene="")
    return text.strip(" ,;")
