"""Who is evaluated, and so never trained on: people with portraits or, without any, some of the invented ones."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import ImageOps

from lookahead.artifacts import atomic
from lookahead.config import Checkpoints, Evaluate, Splits, World
from lookahead.dataset.faces import Array, find_face, unit
from lookahead.dataset.prompts import read_prompts
from lookahead.dataset.shards import list_shards, read_pictures, read_rows, read_table
from lookahead.errors import InputError
from lookahead.portraits import Pixels, open_picture, read_people, read_photo
from lookahead.world import open_faces, quiet_alignment

PEOPLE = "people"  # the folder of those who are held out
SPLITS = ("test", "validation", "search")
ONE_OF, FIRST = 5, 3000  # one in five of the first people is held out: 200 of a split at most


def split_of(identity: int) -> str | None:
    """The split that an invented person is held out for, by the index alone; None is the training's."""
    return SPLITS[identity // ONE_OF % len(SPLITS)] if identity < FIRST and identity % ONE_OF == 0 else None


def check_evaluation(world: World) -> None:
    """Refuse an evaluation that could not be carried out in the end, before anything is drawn."""
    settings, drawn = world.evaluation(), world.generate.people
    styles = len(read_prompts(settings.prompts).styles)
    if settings.invented:
        held_out = sum(split_of(identity) == settings.split for identity in range(drawn))
        if held_out < settings.people:
            raise InputError(
                f"there are no portraits, and of {drawn} invented people only {held_out} would be held out instead; "
                f"the protocol names {settings.people}: add portraits to {world.protocol().portraits}, lower `people` "
                f"in protocols/{world.name}.yaml, or raise generate.people"
            )
        settings.check(held_out, styles)
        return
    people = read_people(Path(settings.portraits), settings.people)
    settings.check(sum(bool(person.others) for person in people), styles)
    read_evaluated(world.checkpoints, settings.splits)
    references = [person.reference for person in people]
    _read_faces(world.checkpoints, "report", ((path, read_photo(path)) for path in references))
    if settings.steering is not None:  # which reads its aims at the size that is drawn
        side = (world.checkpoints.resolution,) * 2
        scaled = ((path, np.asarray(ImageOps.fit(open_picture(path), side))) for path in references)
        _read_faces(world.checkpoints, "loss", scaled)


def read_evaluated(checkpoints: Checkpoints, splits: Splits) -> Array:
    """The faces (K, E) of the reference photos of everybody in the splits, by pack `select`."""
    people = [person for folder in {path.parent: None for path in splits.folders} for person in read_people(folder)]
    photos = ((person.reference, read_photo(person.reference)) for person in people)
    return np.stack(_read_faces(checkpoints, "select", photos))


def _read_faces(checkpoints: Checkpoints, pack: str, photos: Iterable[tuple[Path, Pixels]]) -> list[Array]:
    faces = open_faces(getattr(checkpoints.faces, pack), checkpoints.faces.detection_size)
    with quiet_alignment():
        found = [(path, find_face(faces, pixels)) for path, pixels in photos]
    if missing := [str(path) for path, face in found if face is None]:
        raise InputError(
            f"no face is found by pack `{pack}` in the reference photo {', '.join(missing)}: replace it, or remove the "
            "person, from whom nobody can be kept apart"
        )
    return [face.embedding for _, face in found if face is not None]


def leave_out(world: World, generated: Path, work: Path) -> tuple[set[int], dict[str, float]]:
    """The people of a dataset whom the training may not see, and metrics of them.

    With portraits they are those who look like somebody of the evaluation, by mean kept photo. Without any they are one
    in ONE_OF (`split_of`), whose kept photos are written to `work/people/<split>/<person>/` for the evaluation.
    """
    settings, columns = world.evaluation(), ["index", "identity", "photo", "kept"]
    photos = read_table(generated, columns, "generate").to_pandas().query("kept and photo")
    if settings.invented:
        held_out = _write_people(generated, photos.assign(split=photos["identity"].map(split_of)), work / PEOPLE)
        _check_number(held_out, settings, world.name)
        return set(held_out["identity"]), {"held_out": float(held_out["identity"].nunique())}
    faces, limit = read_evaluated(world.checkpoints, settings.splits), world.features.max_evaluation_similarity
    nearest = nearest_faces(photos, read_rows(generated, "")[2], faces)
    if (nearest > limit).all():
        raise InputError(
            f"all {len(nearest)} people look like somebody of the evaluation, by more than {limit}: raise "
            "features.max_evaluation_similarity, or look at the portraits"
        )
    metrics = {"left_out": float((nearest > limit).sum()), "evaluation_people": float(len(faces))}
    return set(nearest.index[nearest > limit]), metrics | {"nearest": float(nearest[nearest <= limit].max())}


def nearest_faces(photos: pd.DataFrame, embedding: Array, faces: Array) -> pd.Series:
    """By `identity`, the cosine of the mean of a person's photos, rows of `embedding`, to the nearest of `faces`."""
    groups = photos.groupby("identity").groups.items()
    return pd.Series({who: float((faces @ unit(embedding[rows].mean(axis=0))).max()) for who, rows in groups})


def _write_people(generated: Path, photos: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """Write the photos of those who are held out; returns their rows."""
    held_out = photos[photos["split"].notna()]
    columns = zip(held_out["index"], held_out["identity"], held_out["split"], strict=True)
    paths = {index: folder / split / f"{identity:06d}" / f"{index:08d}.png" for index, identity, split in columns}
    for shard in list_shards(generated):
        for index, png in read_pictures(shard):
            if index in paths:
                with atomic(paths[index]) as path:
                    path.write_bytes(png)
    return held_out


def _check_number(held_out: pd.DataFrame, settings: Evaluate, world: str) -> None:
    found = held_out.loc[held_out["split"] == settings.split, "identity"].nunique()
    if found < settings.people:
        raise InputError(
            f"of the people held out of the training only {found} passed the face check, but the protocol names "
            f"{settings.people}: raise generate.people, lower `people` in protocols/{world}.yaml, or add portraits"
        )
