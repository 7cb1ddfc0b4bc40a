"""What people see of the ablation: a table, a figure, a grid of the same people drawn by every row, one HTML page."""

from __future__ import annotations

import itertools
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from lookahead.ablation.cell import FAST, FULL
from lookahead.ablation.table import Line, as_json, as_markdown, first_trained, make_lines, read_cells
from lookahead.artifacts import atomic, write_json, writing
from lookahead.config import Ablation, Evaluate
from lookahead.dataset.prompts import read_prompts
from lookahead.evaluation.pictures import read_pictures
from lookahead.evaluation.plan import make_plan
from lookahead.portraits import read_people, read_photo
from lookahead.report.grids import Line as Strip
from lookahead.report.grids import folded, save_grid
from lookahead.report.pages import inline, inline_png, save_page

_INK, _LINE, _COLOURS = "#2b2f36", "#d9dce1", {FULL: "#d4552a", FAST: "#3f7fbf"}


def write_ablation(study: Ablation, settings: Evaluate, cells: Path, out: Path) -> None:
    """Write `metrics.json`, `table.md`, `report.html`, `grid.jpg` and `differences.png` into `out`.

    Args:
        study: rows and seeds.
        settings: the world's evaluation, for the bootstrap and the people.
        cells: the folder with one folder a row, and in it one a seed.
        out: the folder to write to.

    Raises:
        InputError: a cell is missing or of another study.
    """
    people = read_people(Path(study.protocol(settings).portraits), study.people)
    lines = make_lines(read_cells(cells, study, people), study, settings.bootstrap, settings.seed)
    write_json(out / "metrics.json", as_json(lines))
    with atomic(out / "table.md") as path:
        path.write_text(as_markdown(lines), encoding="utf-8")
    save_grid(_strips(study, settings, cells), out / "grid.jpg")
    _save_differences(lines, out / "differences.png")
    _write_page(study, lines, out)


def _strips(study: Ablation, settings: Evaluate, cells: Path) -> list[Strip]:
    """The same people, prompts and noise in every row: a photo and a stylised picture in turn, the first seed's."""
    protocol = study.protocol(settings)
    people = read_people(Path(protocol.portraits), study.grid_people)
    plan = make_plan(read_prompts(protocol.prompts), protocol)
    of = {p: [i for i, shot in enumerate(plan.shots) if shot.person == p] for p in range(study.grid_people)}
    photo = [shots[0] for shots in of.values()]
    styled = [shots[study.photo_prompts + p % (len(shots) - study.photo_prompts)] for p, shots in of.items()]
    columns = [i for pair in zip(photo, styled, strict=True) for i in pair]
    references = [Image.fromarray(read_photo(person.reference)) for person in people for _ in range(2)]
    strips = [Strip("reference", references, [])]
    for name, row in study.rows.items():
        folder = cells / name / str(study.seeds[0]) / "pictures" / FULL
        pictures = list(itertools.islice(read_pictures(folder), max(columns) + 1))
        strips.append(Strip(folded(row.label), [pictures[i] for i in columns], []))
    captions = [f"{plan.shots[i].style}, {plan.shots[i].scene}" for i in columns]
    return [*strips[:-1], Strip(strips[-1].label, strips[-1].pictures, captions)]


def _save_differences(lines: list[Line], path: Path) -> None:
    """What each row changes against the one that it is compared with, with 95 % intervals; dots are single seeds."""
    shown = [line for line in reversed(lines) if line.against is not None]
    figure = Figure(figsize=(10.4, 0.55 * len(shown) + 1.2), layout="constrained")
    for axis, (name, title) in zip(
        figure.subplots(1, 2, sharey=True), (("identity", "Identity"), ("prompt", "Prompt alignment")), strict=True
    ):
        for offset, sampler in ((0.14, FULL), (-0.14, FAST)):
            for place, line in enumerate(shown):
                mean, low, high = line.differences[f"{sampler}.{name}"].measured()
                axis.plot([low, high], [place + offset] * 2, color=_COLOURS[sampler], linewidth=2.2)
                axis.plot([mean], [place + offset], "o", color=_COLOURS[sampler], markersize=6)
                single = line.by_seed[f"{sampler}.{name}"]
                axis.plot(single, [place + offset] * len(single), "|", color=_INK, markersize=7)
        axis.axvline(0, color=_INK, linewidth=1)
        axis.grid(axis="x", color=_LINE, linewidth=0.8)
        axis.set_title(f"{title}: change against the row compared with", fontsize=10.5, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(length=0, labelsize=8.5)
    axis.set_yticks(range(len(shown)), [f"{line.label}\nagainst {line.against}" for line in shown])
    for sampler, label in ((FULL, "full sampling"), (FAST, "fast child")):
        axis.plot([], [], "o-", color=_COLOURS[sampler], label=label)
    axis.legend(edgecolor="none", fontsize=8.5)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=140, facecolor="white", metadata={"Software": None})


def _write_page(study: Ablation, lines: list[Line], out: Path) -> None:
    grid = inline((out / "grid.jpg").read_bytes(), "jpeg")
    pictures = {"grid": grid, "differences": inline_png(out / "differences.png")}
    content: dict[str, object] = {
        "study": study,
        "lines": lines,
        "full": FULL,
        "fast": FAST,
        "first": first_trained(study),
    }
    save_page("ablation.html.j2", out / "report.html", content | pictures)
