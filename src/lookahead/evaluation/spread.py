"""The same person and prompt from several noises: how diverse a cell's pictures are, and whose layout they keep."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from lookahead.artifacts import code_digest, digest
from lookahead.config import Evaluate
from lookahead.evaluation.cells import Cell
from lookahead.evaluation.evaluator import Evaluator
from lookahead.evaluation.pictures import Plan, Shot, choose_prompts, make_shots, read_pictures
from lookahead.evaluation.scores import Array, Row, Scorers, embed_pictures, layout

METRICS = ("diversity", "diversity_faces", "layout")


def spread_plan(plan: Plan, settings: Evaluate) -> Plan:
    """Some people, some of their prompts, several noises: a photo first, then styles, dealt to people in turn.

    Noise follows the plan's rule, so that its own first repeats are among these shots.
    """
    wanted, styles = settings.diversity, len(plan.styles) - 1
    chosen = []
    for person in range(wanted.people):
        prompts = choose_prompts(person, plan.words, settings.photo_prompts)
        styled = prompts[settings.photo_prompts :]
        chosen.append({prompts[0], *(styled[(person + i) % styles] for i in range(wanted.prompts - 1))})
    shots = make_shots(wanted.people, plan.words, settings.photo_prompts, wanted.seeds, settings.seed)
    return replace(plan, shots=[shot for shot in shots if shot.asked in chosen[shot.person]])


def missing(spread: Plan, plan: Plan) -> Plan:
    """Those of the spread's shots that the plan does not draw anyway."""
    drawn = set(plan.shots)
    return replace(spread, shots=[shot for shot in spread.shots if shot not in drawn])


def measure_spread(evaluator: Evaluator, cells: Sequence[Cell], base: Cell, cache: Path) -> pd.DataFrame:
    """One row a picture of the base model and of the cells: its diversity and its layout (`_spread_rows`).

    Only what the evaluation's own plan does not draw is drawn further.
    """
    plan = evaluator.plan
    spread = spread_plan(plan, evaluator.settings)
    plans = {cell: [plan, missing(spread, plan)] for cell in cells} | {base: [spread]}
    parts = {cell: [(own, evaluator.draw(cell, own, cache)) for own in plans[cell]] for cell in plans}

    def measure() -> pd.DataFrame:
        drawn = {cell: _gathered(spread, own) for cell, own in parts.items()}
        rows = [
            {**cell.columns, **row}
            for cell in (base, *cells)
            for row in _spread_rows(spread, drawn[cell], drawn[base], evaluator.scorers)
        ]
        return pd.DataFrame(rows)

    folders = [[*cell.columns.values(), *(folder.name for _, folder in own)] for cell, own in parts.items()]
    code = code_digest("evaluation/spread.py", "evaluation/scores.py")
    key = digest("spread", folders, evaluator.score_key, code)[:32]
    return evaluator.cached(cache, key, measure)


def _gathered(spread: Plan, parts: Sequence[tuple[Plan, Path]]) -> list[Image.Image]:
    """The spread's pictures in its order, from folders of pictures of other plans."""
    wanted = set(spread.shots)
    found: dict[Shot, Image.Image] = {}
    for plan, folder in parts:
        found |= {shot: image for shot, image in zip(plan.shots, read_pictures(folder), strict=True) if shot in wanted}
    return [found[shot] for shot in spread.shots]


def _spread_rows(
    plan: Plan, pictures: Sequence[Image.Image], base: Sequence[Image.Image], scorers: Scorers
) -> Iterator[Row]:
    """One row a picture: its distance to the pictures of the same person and prompt from other noise, and its layout.

    `diversity` is by CLIP, `diversity_faces` by recogniser `report` (NaN where no two faces are found), `layout` the
    likeness to the base model's picture from the same noise, `layout_other` that to the cell's own from other noise.
    Repeats of one person and prompt come one after another.
    """
    triples = zip(plan.shots, pictures, base, strict=True)
    for _, group in itertools.groupby(triples, lambda triple: (triple[0].person, triple[0].asked)):
        block, drawn, theirs = (list(column) for column in zip(*group, strict=True))
        own, other = (np.stack([layout(picture) for picture in some]) for some in (drawn, theirs))
        columns = {
            "diversity": distances(embed_pictures(scorers.scorer, drawn).double().numpy()),
            "diversity_faces": _face_distances(drawn, scorers),
            "layout": (own * other).sum(1),
            "layout_other": 1 - distances(own),
        }
        for i, shot in enumerate(block):
            yield plan.columns(shot) | {name: float(values[i]) for name, values in columns.items()}


def distances(vectors: Array) -> Array:
    """The mean cosine distance (S,) of each of some unit vectors (S, D) to the others."""
    cosines = vectors @ vectors.T
    return np.subtract(1, (cosines.sum(1) - cosines.diagonal()) / (len(vectors) - 1))


def _face_distances(pictures: Sequence[Image.Image], scorers: Scorers) -> Array:
    faces = [scorers.faces.read(np.asarray(picture)) for picture in pictures]
    found = [i for i, face in enumerate(faces) if face is not None]
    values = np.full(len(pictures), np.nan)
    if len(found) > 1:
        values[found] = distances(np.stack([face["report"] for face in faces if face is not None]))
    return values
