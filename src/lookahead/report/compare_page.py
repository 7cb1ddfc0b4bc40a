"""A comparison for people: a table to print, and one self-contained page with the same pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from lookahead.evaluation.album import REFERENCE, Place
from lookahead.evaluation.compare import Difference, Run, places
from lookahead.evaluation.protocol import HASH
from lookahead.report.pages import plain, save_page, signed
from lookahead.report.report import inline_picture

HEADS = ("run", "prompts", "figure", "first", "this", "difference, 95 %", "verdict")


def rows_of(found: Sequence[Difference]) -> list[tuple[str, ...]]:
    """The differences as rows of words, one for each of HEADS."""
    return [
        (one.label, one.group, one.figure, plain(one.baseline), plain(one.mean), _told(one), one.verdict)
        for one in found
    ]


def _told(one: Difference) -> str:
    return f"{signed(one.change.mean)} ({signed(one.change.low)} to {signed(one.change.high)})"


def table(found: Sequence[Difference]) -> str:
    """The differences as text in columns."""
    rows = [HEADS, *rows_of(found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def write_page(runs: Sequence[Run], found: Sequence[Difference], path: Path) -> None:
    """Write the page: every difference, and below it each shown person's pictures, the reference first.

    Raises:
        InputError: the file cannot be written.
    """
    content: dict[str, object] = {"runs": runs, "heads": HEADS, "rows": rows_of(found), "people": _people(runs)}
    save_page("compare.html.j2", path, content | {"hash": runs[0].protocol[HASH]})


def _people(runs: Sequence[Run]) -> list[dict[str, object]]:
    """Every shown person: name, reference, and a line a prompt with one picture a run."""
    names: list[str] = runs[0].protocol["people"]  # type: ignore[assignment]
    shown = []
    for person, group in groupby(places(runs), key=lambda place: place.person):
        reference = runs[0].album[REFERENCE][Place(person, "", "", 0)]
        lines = [
            (f"{place.style}, {place.scene}", [inline_picture(run.album[run.method][place]) for run in runs])
            for place in group
        ]
        shown.append({"name": names[person], "reference": inline_picture(reference), "lines": lines})
    return shown
