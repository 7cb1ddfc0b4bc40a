"""The report: one self-contained HTML page with the headline, the pictures, every number and the protocol."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from lookahead.config import Evaluate
from lookahead.evaluation.methods import METHODS, comparable, present
from lookahead.evaluation.metrics import METRICS, SPREAD, Metrics, breakdown, by_kind
from lookahead.evaluation.pictures import read_pictures
from lookahead.evaluation.plan import Plan
from lookahead.evaluation.protocol import groups as groups_of
from lookahead.evaluation.statistics import Interval
from lookahead.portraits import Person, read_photo
from lookahead.report.figures import save_breakdown, save_overview, save_preview_curves
from lookahead.report.glossary import MEANINGS, SCALE
from lookahead.report.grids import people_lines, save_grid, thumbnail
from lookahead.report.pages import inline, inline_png, save_page, signed

_QUALITY = 92  # of the JPEG pictures inside the page
Pictures = dict[int, dict[str, Image.Image]]  # by number of the shot, then by method


@dataclass(frozen=True)
class Findings:
    """Everything the report tells."""

    people: list[Person]
    plan: Plan
    table: pd.DataFrame
    previews: pd.DataFrame
    metrics: Metrics
    protocol: Mapping[str, object]
    settings: Evaluate


def write_report(findings: Findings, pictures: Path, work: Path) -> None:
    """Write `report.html` and `grids/*.png` into `work`.

    Args:
        findings: what was measured.
        pictures: the folder with one folder of shards a method.
        work: the folder to write to.
    """
    settings, grids = findings.settings, work / "grids"
    shown = findings.people[: settings.grid_people]
    drawn = _pictures(
        pictures, present(findings.metrics), sum(shot.person < len(shown) for shot in findings.plan.shots)
    )
    resampling = settings.bootstrap, settings.seed
    groups = {column: breakdown(findings.table, column, *resampling) for column in ("style", "scene")}
    groups["kind"] = by_kind(findings.table, groups_of(findings.settings, findings.plan.styles), *resampling)
    save_grid(people_lines(shown, findings.plan, drawn, settings.photo_prompts), grids / "people.png")
    save_overview(findings.metrics, grids / "overview.png")
    save_breakdown(groups["style"], groups["scene"], grids / "styles_and_scenes.png")
    save_preview_curves(findings.previews, grids / "previews.png")
    content: dict[str, object] = {
        "findings": findings,
        "verdict": verdict(findings.metrics["gain"]),
        "albums": [_album(number, person, findings, drawn) for number, person in enumerate(shown)],
        "groups": groups,
        "kinds": list(findings.settings.groups),
        "overview": inline_png(grids / "overview.png"),
        "preview_curves": inline_png(grids / "previews.png"),
        "by_group": inline_png(grids / "styles_and_scenes.png"),
    }
    save_page("report.html.j2", work / "report.html", content | _words(findings.metrics))


def _words(metrics: Metrics) -> dict[str, object]:
    """What the page calls the methods, comparisons and metrics that there are."""
    compared = {key: one.name for key, one in comparable(metrics).items()}
    return {
        "methods": present(metrics),
        "names": {method: METHODS[method].name for method in present(metrics)},
        "compared": compared,
        "groups_of_metrics": [*present(metrics), *compared],
        "unspread": any(metrics[method][name].mean is None for method in present(metrics) for name in SPREAD),
        "metric_names": list(METRICS | SPREAD),
        "meanings": MEANINGS,
        "scale": SCALE,
    }


def verdict(gain: Mapping[str, Interval]) -> str:
    """One sentence: what the lookahead loss changed, against the same training without it."""
    identity, prompt = gain["identity"], gain["prompt"]
    told = {1: "raises", -1: "lowers", 0: "does not measurably change"}
    first = f"The lookahead loss {told[sign(identity)]} identity: {_told(identity)}"
    return f"{first}. It {told[sign(prompt)]} prompt alignment: {_told(prompt)}."


def sign(value: Interval) -> int:
    """1 or -1 if the interval excludes 0, else 0."""
    if value.low is None or value.high is None:
        return 0
    return int(value.low > 0) - int(value.high < 0)


def _told(value: Interval) -> str:
    return f"{signed(value.mean)} ({signed(value.low)} to {signed(value.high)})"


def _pictures(folder: Path, methods: list[str], count: int) -> Pictures:
    firsts = {m: list(itertools.islice(read_pictures(folder / m), count)) for m in methods}
    return {i: {m: pictures[i] for m, pictures in firsts.items()} for i in range(count)}


def _album(number: int, person: Person, findings: Findings, drawn: Pictures) -> dict[str, object]:
    """One person's pictures for the page: the reference and, by method, every picture with its identity."""
    shots = [i for i, shot in enumerate(findings.plan.shots) if shot.person == number]
    judged = {m: findings.table[findings.table["method"] == m] for m in present(findings.metrics)}
    rows = {m: [_judged_picture(drawn[i][m], table.iloc[i]) for i in shots] for m, table in judged.items()}
    heads = [(findings.plan.shots[i].style, findings.plan.shots[i].scene) for i in shots]
    reference = inline_picture(Image.fromarray(read_photo(person.reference)))
    return {"name": person.name, "reference": reference, "heads": heads, "rows": rows}


def _judged_picture(picture: Image.Image, row: pd.Series) -> tuple[str, float, bool]:
    return inline_picture(picture), float(row["identity"]), bool(row["detected"])


def inline_picture(picture: Image.Image) -> str:
    """A thumbnail as a data URI."""
    buffer = io.BytesIO()
    thumbnail(picture).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return inline(buffer.getvalue(), "jpeg")
