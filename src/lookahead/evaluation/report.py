"""The report: one self-contained HTML page with the headline, the pictures, every number and the protocol."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from PIL import Image

from lookahead.artifacts import atomic
from lookahead.config import Evaluate
from lookahead.evaluation.figures import COMPARED, NAMES, save_breakdown, save_overview, save_preview_curves
from lookahead.evaluation.glossary import MEANINGS, SCALE
from lookahead.evaluation.grids import people_lines, save_grid, thumbnail
from lookahead.evaluation.metrics import METHODS, METRICS, Metrics, breakdown
from lookahead.evaluation.pictures import read_pictures
from lookahead.evaluation.plan import Plan
from lookahead.evaluation.portraits import Person, read_photo
from lookahead.evaluation.statistics import Interval

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
    drawn = _pictures(pictures, sum(shot.person < len(shown) for shot in findings.plan.shots))
    groups = {c: breakdown(findings.table, c, settings.bootstrap, settings.seed) for c in ("style", "scene")}
    save_grid(people_lines(shown, findings.plan, drawn, settings.photo_prompts), grids / "people.png")
    save_overview(findings.metrics, grids / "overview.png")
    save_breakdown(groups["style"], groups["scene"], grids / "styles_and_scenes.png")
    save_preview_curves(findings.previews, grids / "previews.png")
    page = _template().render(
        findings=findings,
        verdict=verdict(findings.metrics["gain"]),
        albums=[_album(number, person, findings, drawn) for number, person in enumerate(shown)],
        groups=groups,
        overview=_inline((grids / "overview.png").read_bytes(), "png"),
        preview_curves=_inline((grids / "previews.png").read_bytes(), "png"),
        by_group=_inline((grids / "styles_and_scenes.png").read_bytes(), "png"),
    )
    with atomic(work / "report.html") as path:
        path.write_text(page, encoding="utf-8")


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


def short(value: float | None) -> str:
    """A number as it stands below a picture."""
    return _formatted(value, "z.2f")


def plain(value: float | None) -> str:
    """A number as most tables show it."""
    return _formatted(value, "z.3f")


def number(value: float | None) -> str:
    """A number as the table of all numbers shows it."""
    return _formatted(value, "z.4f")


def signed(value: float | None) -> str:
    """A difference with its sign."""
    return _formatted(value, "+z.3f")


def _formatted(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form).replace("-", "−")


def _told(value: Interval) -> str:
    return f"{signed(value.mean)} ({signed(value.low)} to {signed(value.high)})"


def _template() -> Template:
    loader = PackageLoader("lookahead.evaluation", "templates")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(number=number, signed=signed, plain=plain, short=short)
    environment.globals.update(methods=METHODS, groups_of_metrics=[*METHODS, *COMPARED], metric_names=list(METRICS))
    environment.globals.update(names=NAMES, compared=COMPARED, meanings=MEANINGS, scale=SCALE)
    return environment.get_template("report.html.j2")


def _pictures(folder: Path, count: int) -> Pictures:
    firsts = {method: list(itertools.islice(read_pictures(folder / method), count)) for method in METHODS}
    return {i: {method: firsts[method][i] for method in METHODS} for i in range(count)}


def _album(number: int, person: Person, findings: Findings, drawn: Pictures) -> dict[str, object]:
    """One person's pictures for the page: the reference and, by method, every picture with its identity."""
    shots = [i for i, shot in enumerate(findings.plan.shots) if shot.person == number]
    judged = {m: findings.table[findings.table["method"] == m] for m in METHODS}
    rows = {m: [_judged_picture(drawn[i][m], judged[m].iloc[i]) for i in shots] for m in METHODS}
    heads = [(findings.plan.shots[i].style, findings.plan.shots[i].scene) for i in shots]
    reference = inline_picture(Image.fromarray(read_photo(person.reference)))
    return {"name": person.name, "reference": reference, "heads": heads, "rows": rows}


def _judged_picture(picture: Image.Image, row: pd.Series) -> tuple[str, float, bool]:
    return inline_picture(picture), float(row["identity"]), bool(row["detected"])


def inline_picture(picture: Image.Image) -> str:
    """A thumbnail as a data URI."""
    buffer = io.BytesIO()
    thumbnail(picture).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return _inline(buffer.getvalue(), "jpeg")


def _inline(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
