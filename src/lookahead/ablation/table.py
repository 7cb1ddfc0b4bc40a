"""The ablation's numbers: means over seeds and people, and paired differences between rows, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lookahead.ablation.cell import FAST, FULL
from lookahead.config import Ablation
from lookahead.evaluation.layout import colours, leaking
from lookahead.evaluation.pictures import read_pictures
from lookahead.evaluation.statistics import Array, Interval, by_person
from lookahead.evaluation.tables import PER_IMAGE, read_rows
from lookahead.portraits import Person, read_photo

LEAK = "leak"
FIGURES = {
    "identity": "identity",
    "prompt": "prompt_right",
    "style": "style_right",
    "scene": "scene_right",
    LEAK: LEAK,
    "detection_rate": "detected",
    "identity_loss": "identity_loss",
}
Values = dict[str, Array]  # by "<sampler>.<figure>": (seeds, people)


@dataclass(frozen=True)
class Line:
    """One row of the table: its means, and its differences to the row `against`, and to the first one that was trained.

    The first row has neither; the first one that was trained has no `gains`.
    """

    name: str
    label: str
    against: str | None
    means: dict[str, Interval]
    differences: dict[str, Interval]
    by_seed: dict[str, list[float]]
    gains: dict[str, Interval]


def two_level_interval(values: Array, resamples: int, seed: int) -> Interval:
    """The mean of (S, P) numbers and its 95 % interval by a bootstrap over seeds and, within it, over people.

    Seeds and people are resampled independently: the people are the same for every seed (crossed design).
    """
    generator = np.random.default_rng(seed)
    seeds, people = values.shape
    centred = values - values.mean()
    means = np.empty(resamples)
    for i in range(resamples):
        chosen = centred[generator.integers(seeds, size=seeds)].mean(0)
        means[i] = chosen[generator.integers(people, size=people)].mean()
    low, high = np.percentile(means, (2.5, 97.5)) + values.mean()
    return Interval(float(values.mean()), float(low), float(high))


def read_cells(folder: Path, study: Ablation, people: Sequence[Person]) -> dict[str, Values]:
    """The person means of every row: (seeds, people) by "<sampler>.<figure>".

    Raises:
        InputError: a cell or a photo is missing, damaged or of another study.
    """
    particular = np.stack([_particular(person) for person in people])  # (P, D)
    cells = {row: [folder / row / str(seed) for seed in study.seeds] for row in study.rows}
    return {row: _stacked([_person_means(cell, study, particular) for cell in cells[row]]) for row in study.rows}


def _particular(person: Person) -> Array:
    reference, *others = (Image.fromarray(read_photo(path)) for path in (person.reference, *person.others))
    return leaking(reference, others)


def _stacked(cells: list[Values]) -> Values:
    return {name: np.stack([cell[name] for cell in cells]) for name in cells[0]}


def _person_means(cell: Path, study: Ablation, particular: Array) -> Values:
    table = read_rows(cell / PER_IMAGE, study.people, "make ablation")
    means: Values = {}
    for sampler, rows in table.groupby("sampler"):
        people = rows["person"].to_numpy(np.int64)
        drawn = np.stack([colours(picture) for picture in read_pictures(cell / "pictures" / str(sampler))])
        rows = rows.assign(**{LEAK: (drawn * particular[people]).sum(1)})
        for figure, column in FIGURES.items():
            means[f"{sampler}.{figure}"] = by_person(people, rows[column].to_numpy(np.float64))
    return means


def against(study: Ablation, name: str) -> str | None:
    """The row that a row is compared with: the one that it comes after, else the one above it."""
    names = list(study.rows)
    above = names[names.index(name) - 1] if names.index(name) else None
    return study.rows[name].after or above


def first_trained(study: Ablation) -> str:
    """The row that shows what training alone does, in the paper's order the noise loss only; the last if none is."""
    return next((name for name, row in study.rows.items() if row.tuned == "train"), list(study.rows)[-1])


def make_lines(cells: Mapping[str, Values], study: Ablation, resamples: int, seed: int) -> list[Line]:
    """Every row with its means and its paired differences, resampled alike."""

    def intervals(values: Values) -> dict[str, Interval]:
        return {figure: two_level_interval(array, resamples, seed) for figure, array in values.items()}

    def changes(name: str, other: str | None) -> Values:
        return {} if other is None else {figure: array - cells[other][figure] for figure, array in cells[name].items()}

    lines, first = [], first_trained(study)
    later = list(study.rows)[list(study.rows).index(first) + 1 :]
    for name, row in study.rows.items():
        other = against(study, name)
        own, gains = changes(name, other), changes(name, first if name in later else None)
        by_seed = {figure: array.mean(1).tolist() for figure, array in own.items()}
        lines.append(Line(name, row.label, other, intervals(cells[name]), intervals(own), by_seed, intervals(gains)))
    return lines


def as_json(lines: list[Line]) -> dict[str, object]:
    """The lines as `metrics.json` holds them."""
    return {
        line.name: {
            "label": line.label,
            "against": line.against,
            "means": {name: value.row() for name, value in line.means.items()},
            "differences": {name: value.row() for name, value in line.differences.items()},
            "differences_by_seed": line.by_seed,
            "gains": {name: value.row() for name, value in line.gains.items()},
        }
        for line in lines
    }


def _told(value: Interval | None, signed: bool) -> str:
    if value is None:
        return ""
    mean, low, high = value.measured()
    sign = "+" if signed else ""
    verdict = " (no difference)" if signed and low <= 0 <= high else ""
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]{verdict}"


def as_markdown(lines: list[Line]) -> str:
    """The table that people read: full sampling first, the fast child's identity and prompt alignment behind."""
    told = ("identity", "prompt", "style", LEAK)
    heads = ["", *told, "identity against", "prompt against", "row compared with"]
    heads += ["identity against the first trained row", "identity, few steps", "prompt, few steps"]
    rows = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for line in lines:
        cells = [line.label, *(_told(line.means[f"{FULL}.{figure}"], False) for figure in told)]
        cells += [_told(line.differences.get(f"{FULL}.{figure}"), True) for figure in ("identity", "prompt")]
        cells += [line.against or "", _told(line.gains.get(f"{FULL}.identity"), True)]
        cells += [_told(line.means[f"{FAST}.{figure}"], False) for figure in ("identity", "prompt")]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"
