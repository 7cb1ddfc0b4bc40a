"""The evaluation: every method draws the same people from the same noise and is judged by the same models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
from PIL import Image

from lookahead.artifacts import Log, write_json, write_parquet
from lookahead.config import Checkpoints, Evaluate
from lookahead.data.prompts import read_prompts
from lookahead.errors import InputError
from lookahead.evaluation.album import save_album
from lookahead.evaluation.faces import FaceReader, read_others, read_references
from lookahead.evaluation.measure import Judges, measure
from lookahead.evaluation.metrics import METHODS, Metrics, flatten, rows_of, scale_of_identity, summarise
from lookahead.evaluation.pictures import Conditions, draw_pictures, read_pictures
from lookahead.evaluation.plan import Plan, make_plan
from lookahead.evaluation.portraits import Person, read_people, read_photo
from lookahead.evaluation.previews import measure_previews, save_previews
from lookahead.evaluation.protocol import describe, groups
from lookahead.evaluation.report import Findings, write_report
from lookahead.evaluation.scoring import embed_texts
from lookahead.evaluation.series import save_series
from lookahead.evaluation.store import shelf, take
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.models.kv_encoder import KV_FILE, open_kv_encoder
from lookahead.sampling.conditions import Condition, embed_prompts, encode_photos, reference_latents
from lookahead.sampling.loop import Sampler, image_guidance, prepare
from lookahead.world import Pipeline, attach_adapter, detach_adapter, open_image_encoder, open_pipeline, open_scorer

PICTURES = "pictures"


def evaluate(
    checkpoints: Checkpoints,
    settings: Evaluate,
    variants: Mapping[str, Path | None],
    work: Path,
    log: Log,
    store: Path,
) -> None:
    """Compare the untuned adapter, the noise-only and the lookahead-tuned one on people never seen (design, section 5).

    Writes `metrics.json`, `protocol.json`, `per_image.parquet`, `previews.csv`, `groups.csv`, `preview_curves.csv`,
    `album.parquet`, `report.html`, `grids/` and `pictures/` into `work`. Pictures that `store` holds are not drawn
    again: a killed evaluation goes on, other judges only judge.

    Args:
        checkpoints: the world.
        settings: the protocol.
        variants: encoder folder by method (METHODS); None is the world's untuned adapter.
        work: the folder to write to.
        log: receives every number of `metrics.json` by its dotted name.
        store: where pictures are kept.

    Raises:
        InputError: portraits, prompts or a checkpoint are missing or wrong, or a reference photo shows no face.
    """
    _check(variants)
    people = read_people(Path(settings.portraits), settings.people)
    plan = make_plan(read_prompts(settings.prompts), settings)
    judges = open_judges(checkpoints, people, plan)
    conditions = _draw(checkpoints, settings, variants, people, plan, work / PICTURES, store)
    previews = measure_previews(checkpoints, settings, people, conditions, judges.faces)
    save_previews(previews, work / "previews.csv")
    table = _judge(plan, judges, settings.batch, work)
    metrics = _metrics(table, judges, settings)
    write_json(work / "metrics.json", rows_of(metrics))
    protocol = describe(settings, checkpoints, people, plan)
    write_json(work / "protocol.json", protocol)
    save_series(table, previews, groups(settings, plan.styles), settings.bootstrap, settings.seed, work)
    save_album(people[: settings.grid_people], plan, work / PICTURES, METHODS, work)
    write_report(Findings(people, plan, table, previews, metrics, protocol, settings), work / PICTURES, work)
    log(flatten(metrics), 0)


def _check(variants: Mapping[str, Path | None]) -> None:
    if set(variants) != set(METHODS):
        raise InputError(f"the evaluation compares {', '.join(METHODS)}; it was given {', '.join(sorted(variants))}")
    for method, path in variants.items():
        if path is not None and not (path / ADAPTER_FILE).is_file():
            raise InputError(f"{path}, the encoder of {method}, does not exist: train it first (`lookahead train`)")


def open_judges(checkpoints: Checkpoints, people: list[Person], plan: Plan) -> Judges:
    """The recognisers and CLIP, with the faces and captions that pictures are compared to.

    Raises:
        InputError: a reference photo shows no face, or a checkpoint is missing.
    """
    faces, scorer = FaceReader(checkpoints.faces), open_scorer(checkpoints)
    references = read_references(faces, people)
    return Judges(faces, references, read_others(faces, people), scorer, embed_texts(scorer, plan.prompts))


def _draw(
    checkpoints: Checkpoints,
    settings: Evaluate,
    variants: Mapping[str, Path | None],
    people: list[Person],
    plan: Plan,
    out: Path,
    store: Path,
) -> Conditions:
    pipe = open_pipeline(checkpoints)
    conditions = encode_conditions(checkpoints, pipe, people, plan)
    for method in METHODS:
        encoder = variants[method]

        def fill(folder: Path, method: str = method, encoder: Path | None = encoder) -> None:
            sampler = open_sampler(checkpoints, pipe, settings, encoder)
            draw_pictures(sampler, plan, conditions, settings.batch, folder, method)

        take(shelf(store, checkpoints, settings, people, plan, encoder, None), plan, settings.batch, fill, out / method)
    return conditions


def open_sampler(checkpoints: Checkpoints, pipe: Pipeline, settings: Evaluate, encoder: Path | None) -> Sampler:
    """The pipeline with a trained encoder, the folder that training wrote, or with the untuned adapter.

    Raises:
        InputError: a file of the encoder is damaged or does not fit.
    """
    trained_kv = None if encoder is None else encoder / KV_FILE
    detach_adapter(pipe)
    kv = open_kv_encoder(trained_kv, pipe.unet) if trained_kv is not None and trained_kv.is_file() else None
    attach_adapter(pipe, checkpoints if encoder is None else encoder / ADAPTER_FILE)
    guidance = image_guidance(settings.guidance) if kv is None else settings.kv_guidance
    return prepare(pipe, settings.sampler, settings.steps, settings.adapter_scale, guidance, kv)


def encode_conditions(checkpoints: Checkpoints, pipe: Pipeline, people: list[Person], plan: Plan) -> Conditions:
    """Everything that the U-Net and the KV-encoder are told of every person and prompt.

    A portrait's scene is not known: the KV-encoder is told the first one, in the plain style.
    """
    prompts, free = embed_prompts(pipe, [prompt for row in plan.prompts for prompt in row])
    photos = [Image.fromarray(read_photo(person.reference)) for person in people]
    image, free_image = encode_photos(*open_image_encoder(checkpoints), photos)
    return Conditions(prompts, image, Condition(free, free_image), reference_latents(pipe, photos))


def _judge(plan: Plan, judges: Judges, batch: int, work: Path) -> pd.DataFrame:
    pictures = {method: read_pictures(work / PICTURES / method) for method in METHODS}
    rows = [row for method in METHODS for row in measure(method, plan, pictures[method], judges, batch)]
    table = pd.DataFrame(rows)
    write_parquet(work / "per_image.parquet", pa.Table.from_pandas(table, preserve_index=False))
    return table


def _metrics(table: pd.DataFrame, judges: Judges, settings: Evaluate) -> Metrics:
    metrics = summarise(table, settings.bootstrap, settings.seed)
    own = [embeddings["report"] for embeddings in judges.references]
    others = [[photo["report"] for photo in photos] for photos in judges.others]
    return metrics | {"scale": scale_of_identity(own, others, settings.bootstrap, settings.seed)}
