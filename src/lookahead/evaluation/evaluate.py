"""The evaluation: every method draws the same people from the same noise and is judged by the same models."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from lookahead.artifacts import Log, digest, digest_paths, write_json
from lookahead.config import Checkpoints, Evaluate
from lookahead.data.prompts import read_prompts
from lookahead.evaluation.measure import Judges, measure
from lookahead.evaluation.methods import BASE, Encoder, encoders_of
from lookahead.evaluation.metrics import (
    SPREAD,
    Metrics,
    by_kind,
    flatten,
    joined,
    rows_of,
    scale_of_identity,
    scale_of_spread,
    summarise,
)
from lookahead.evaluation.panel import encode_conditions, open_base, open_judges, open_sampler
from lookahead.evaluation.pictures import Conditions, draw_pictures, read_pictures
from lookahead.evaluation.plan import Plan, make_plan
from lookahead.evaluation.portraits import Person, read_people
from lookahead.evaluation.previews import measure_previews, save_previews
from lookahead.evaluation.report import Findings, write_report
from lookahead.evaluation.spread import gather, missing, spread_plan, spread_rows
from lookahead.evaluation.tables import PER_IMAGE, as_table, save_rows
from lookahead.world import open_pipeline

PICTURES = "pictures"
MORE = "spread"  # below it: pictures from further noises, and the base model's


def evaluate(
    checkpoints: Checkpoints, settings: Evaluate, variants: Mapping[str, Path | None], work: Path, log: Log
) -> None:
    """Compare the untuned adapter, the noise-only and the lookahead-tuned one on people never seen (design, section 5).

    Writes `metrics.json`, `protocol.json`, `per_image.parquet`, `spread.parquet`, `previews.csv`, `report.html`,
    `grids/` and `pictures/` into `work`; pictures that `work` holds already are kept, so a killed evaluation goes on.

    Args:
        checkpoints: the world.
        settings: the protocol.
        variants: encoder folder by method (VARIANTS); None is the world's untuned adapter.
        work: the folder to write to.
        log: receives every number of `metrics.json` by its dotted name.

    Raises:
        InputError: portraits, prompts or a checkpoint are missing or wrong, or a reference photo shows no face.
    """
    encoders = encoders_of(variants)
    people = read_people(Path(settings.portraits), settings.people)
    plan = make_plan(read_prompts(settings.prompts), settings)
    spread = spread_plan(plan, settings)
    judges = open_judges(checkpoints, people, plan)
    conditions = _draw(checkpoints, settings, encoders, people, (plan, spread), work / PICTURES)
    previews = measure_previews(checkpoints, settings, people, conditions, judges.faces)
    save_previews(previews, work / "previews.csv")
    table = _judge(plan, encoders, judges, settings.batch, work)
    metrics = _metrics(table, _judge_spread(plan, spread, encoders, judges, work), judges, settings, plan.styles[0])
    write_json(work / "metrics.json", rows_of(metrics))
    protocol = _protocol(settings, people, plan)
    write_json(work / "protocol.json", protocol)
    write_report(Findings(people, plan, table, previews, metrics, protocol, settings), work / PICTURES, work)
    log(flatten(metrics), 0)


def _draw(
    checkpoints: Checkpoints,
    settings: Evaluate,
    encoders: Mapping[str, Encoder],
    people: list[Person],
    plans: tuple[Plan, Plan],
    folder: Path,
) -> Conditions:
    plan, spread = plans
    pipe = open_pipeline(checkpoints)
    conditions = encode_conditions(checkpoints, pipe, people, plan)
    for method, encoder in encoders.items():
        sampler = open_sampler(checkpoints, pipe, settings, encoder.folder, encoder.keys_values)
        draw_pictures(sampler, plan, conditions, settings.batch, folder / method)
        draw_pictures(sampler, missing(spread, plan), conditions, settings.batch, folder / MORE / method)
    draw_pictures(open_base(pipe, settings), spread, conditions, settings.batch, folder / MORE / BASE)
    return conditions


def _judge(plan: Plan, methods: Iterable[str], judges: Judges, batch: int, work: Path) -> pd.DataFrame:
    pictures = {method: read_pictures(work / PICTURES / method) for method in methods}
    rows = (row for method in pictures for row in measure(method, plan, pictures[method], judges, batch))
    return save_rows(as_table(rows), work / PER_IMAGE)


def _judge_spread(plan: Plan, spread: Plan, methods: Iterable[str], judges: Judges, work: Path) -> pd.DataFrame:
    folder, further = work / PICTURES, missing(spread, plan)
    base = list(read_pictures(folder / MORE / BASE))
    rows = list(spread_rows(BASE, spread.shots, base, base, judges))
    for method in methods:
        drawn = zip(plan.shots, read_pictures(folder / method), strict=True)
        more = zip(further.shots, read_pictures(folder / MORE / method), strict=True)
        rows += spread_rows(method, spread.shots, gather(spread, itertools.chain(drawn, more)), base, judges)
    return save_rows(as_table(rows), work / "spread.parquet")


def _metrics(table: pd.DataFrame, spread: pd.DataFrame, judges: Judges, settings: Evaluate, plain: str) -> Metrics:
    resampling = settings.bootstrap, settings.seed
    diverse = summarise(spread, *resampling, SPREAD)
    metrics = {group: values | diverse[group] for group, values in summarise(table, *resampling).items()}
    own = [embeddings["report"] for embeddings in judges.references]
    others = [[photo["report"] for photo in photos] for photos in judges.others]
    scale = scale_of_identity(own, others, *resampling)
    scale |= scale_of_spread(spread[spread["method"] == BASE], *resampling)
    return metrics | joined(by_kind(table, plain, *resampling)) | {"scale": scale}


def _protocol(settings: Evaluate, people: list[Person], plan: Plan) -> dict[str, object]:
    """What defines the evaluation, and its hash: equal hashes mean that metrics may be compared."""
    told: dict[str, object] = {
        "people": [person.name for person in people],
        "references": digest_paths([person.reference for person in people]),
        "prompts": plan.prompts,
        "styles": plan.styles,
        "scenes": plan.scenes,
        "settings": settings.model_dump(exclude={"batch", "grid_people", "portraits", "prompts"}),
    }
    return told | {"hash": digest(told)}
