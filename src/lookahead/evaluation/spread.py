"""The same person and prompt from several noises: how diverse a method's pictures are, and whose layout they keep."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from PIL import Image

from lookahead.config import Evaluate
from lookahead.errors import InputError
from lookahead.evaluation.layout import layout
from lookahead.evaluation.measure import Judges, Row
from lookahead.evaluation.plan import Plan, Shot, choose_prompts, make_shots
from lookahead.evaluation.scoring import embed_pictures
from lookahead.evaluation.statistics import Array


def spread_plan(plan: Plan, settings: Evaluate) -> Plan:
    """Some people, some of their prompts, several noises: a photo first, then styles, dealt to people in turn.

    Noise follows the plan's rule, so that its own first repeats are among these shots.

    Raises:
        InputError: `diversity` asks for more people or prompts than the evaluation has.
    """
    wanted, styles = settings.diversity, len(plan.styles) - 1
    if wanted.people > settings.people:
        raise InputError(f"diversity.people is {wanted.people}, but evaluate.people only {settings.people}: lower it")
    if wanted.prompts > styles + 1:
        raise InputError(
            f"diversity.prompts is {wanted.prompts}: there are a photo and {styles} other styles; lower it"
        )
    chosen = [_prompts(person, plan, settings) for person in range(wanted.people)]
    shots = make_shots(wanted.people, plan.styles, plan.scenes, settings.photo_prompts, wanted.seeds, settings.seed)
    return replace(plan, shots=[shot for shot in shots if (shot.style, shot.scene) in chosen[shot.person]])


def _prompts(person: int, plan: Plan, settings: Evaluate) -> list[tuple[str, str]]:
    first, *others = choose_prompts(person, plan.styles, plan.scenes, settings.photo_prompts)
    styled = others[settings.photo_prompts - 1 :]
    return [first] + [styled[(person + i) % len(styled)] for i in range(settings.diversity.prompts - 1)]


def missing(spread: Plan, plan: Plan) -> Plan:
    """Those of the spread's shots that the plan does not draw anyway."""
    return replace(spread, shots=[shot for shot in spread.shots if shot not in set(plan.shots)])


def gather(spread: Plan, drawn: Iterable[tuple[Shot, Image.Image]]) -> list[Image.Image]:
    """The spread's pictures in its order, from pictures of the plan and those drawn besides."""
    wanted = set(spread.shots)
    found = {shot: picture for shot, picture in drawn if shot in wanted}
    return [found[shot] for shot in spread.shots]


def spread_rows(
    method: str, shots: Sequence[Shot], pictures: Sequence[Image.Image], base: Sequence[Image.Image], judges: Judges
) -> Iterator[Row]:
    """One row a picture: its distance to the pictures of the same person and prompt from other noise, and its layout.

    `diversity` is by CLIP, `diversity_faces` by recogniser `report` (NaN where no two faces are found), `layout` the
    likeness to the base model's picture from the same noise, `layout_other` that to the method's own from other noise.

    Args:
        method: its name, a column of the rows.
        shots: the spread's, repeats of one person and prompt one after another.
        pictures: the method's, as many.
        base: the base model's, as many.
        judges: the recognisers and CLIP.
    """
    triples = zip(shots, pictures, base, strict=True)
    for _, group in itertools.groupby(triples, lambda triple: (triple[0].person, triple[0].style, triple[0].scene)):
        block = list(group)
        drawn = [picture for _, picture, _ in block]
        own, other = np.stack([layout(p) for p in drawn]), np.stack([layout(p) for _, _, p in block])
        columns = {
            "diversity": distances(embed_pictures(judges.scorer, drawn).double().numpy()),
            "diversity_faces": _face_distances(drawn, judges),
            "layout": (own * other).sum(1),
            "layout_other": 1 - distances(own),
        }
        for i, (shot, _, _) in enumerate(block):
            yield {"method": method} | shot.row() | {name: float(values[i]) for name, values in columns.items()}


def distances(vectors: Array) -> Array:
    """The mean cosine distance (S,) of each of some unit vectors (S, D) to the others."""
    cosines = vectors @ vectors.T
    means: Array = 1 - (cosines.sum(1) - cosines.diagonal()) / (len(vectors) - 1)
    return means


def _face_distances(pictures: Sequence[Image.Image], judges: Judges) -> Array:
    faces = [judges.faces.read(np.asarray(picture)) for picture in pictures]
    found = [i for i, face in enumerate(faces) if face is not None]
    values = np.full(len(pictures), np.nan)
    if len(found) > 1:
        values[found] = distances(np.stack([face["report"] for face in faces if face is not None]))
    return values
