"""The evaluation: every method draws the same people from the same noise and is judged by the same models."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from lookahead.artifacts import Log, write_json
from lookahead.config import Checkpoints, Evaluate
from lookahead.evaluation.album import save_album
from lookahead.evaluation.measure import Judges
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
from lookahead.evaluation.panel import Panel, draw_once, judged, open_base, open_panel, open_sampler
from lookahead.evaluation.pictures import read_pictures
from lookahead.evaluation.plan import Plan
from lookahead.evaluation.previews import measure_previews, save_previews
from lookahead.evaluation.protocol import describe, groups
from lookahead.evaluation.report import Findings, write_report
from lookahead.evaluation.series import save_series
from lookahead.evaluation.spread import gather, missing, spread_plan, spread_rows
from lookahead.evaluation.statistics import Interval
from lookahead.evaluation.steering import aimed, steering, steering_key
from lookahead.evaluation.store import NO_ADAPTER, adapter_key
from lookahead.evaluation.tables import PER_IMAGE, as_table, save_rows
from lookahead.sampling.loop import Sampler
from lookahead.world import Pipeline, open_pipeline

PICTURES = "pictures"
MORE = "spread"  # below it: pictures from further noises, and the base model's


def evaluate(
    checkpoints: Checkpoints,
    settings: Evaluate,
    variants: Mapping[str, Path | None],
    work: Path,
    log: Log,
    store: Path,
) -> None:
    """Compare the untuned adapter, the noise-only and the lookahead-tuned one on people never seen (design, section 5).

    Where the settings have `steering`, the lookahead-tuned one is also drawn with lookahead guidance.

    Writes `metrics.json`, `protocol.json`, `per_image.parquet`, `spread.parquet`, `previews.csv`, `groups.csv`,
    `preview_curves.csv`, `album.parquet`, `report.html`, `grids/` and `pictures/` into `work`. Pictures that `store`
    holds are not drawn again: a killed evaluation goes on, other judges only judge.

    Args:
        checkpoints: the world.
        settings: the protocol.
        variants: encoder folder by method (VARIANTS); None is the world's untuned adapter.
        work: the folder to write to.
        log: receives every number of `metrics.json` by its dotted name.
        store: where pictures are kept.

    Raises:
        InputError: portraits, prompts or a checkpoint are missing or wrong, or a reference photo shows no face.
    """
    encoders, pipe = encoders_of(variants, settings.steering), open_pipeline(checkpoints)
    panel = open_panel(checkpoints, settings, pipe)
    panel = panel if settings.steering is None else aimed(panel, pipe)
    people, plan, judges = panel.people, panel.plan, panel.judges
    spread = spread_plan(plan, settings)
    _draw(panel, pipe, encoders, spread, work / PICTURES, store)
    previews = measure_previews(checkpoints, settings, people, panel.conditions, judges.faces)
    save_previews(previews, work / "previews.csv")
    table = pd.concat([judged(panel, method, work / PICTURES / method) for method in encoders], ignore_index=True)
    save_rows(table, work / PER_IMAGE)
    metrics = _metrics(table, _judge_spread(plan, spread, encoders, judges, work), judges, settings, plan)
    write_json(work / "metrics.json", rows_of(metrics))
    protocol = describe(settings, checkpoints, people, plan)
    write_json(work / "protocol.json", protocol)
    save_series(table, previews, groups(settings, plan.styles), settings.bootstrap, settings.seed, work)
    save_album(people[: settings.grid_people], plan, work / PICTURES, list(encoders), work)
    write_report(Findings(people, plan, table, previews, metrics, protocol, settings), work / PICTURES, work)
    log(flatten(metrics), 0)


def _draw(panel: Panel, pipe: Pipeline, encoders: Mapping[str, Encoder], spread: Plan, out: Path, store: Path) -> None:
    """Draw every method's pictures, further ones from other noises, and the base model's."""

    def put(name: str, shots: Plan, key: object, ready: Callable[[], AbstractContextManager[Sampler]]) -> None:
        part = replace(panel, plan=shots)
        draw_once(part, ready, name, part.shelf(store, key), out / name)

    for method, encoder in encoders.items():
        ready, key = partial(_opened, panel, pipe, encoder), _key(panel.checkpoints, encoder)
        put(method, panel.plan, key, ready)
        if encoder.spread:
            put(f"{MORE}/{method}", missing(spread, panel.plan), key, ready)
    put(f"{MORE}/{BASE}", spread, NO_ADAPTER, lambda: nullcontext(open_base(pipe, panel.protocol)))


def _opened(panel: Panel, pipe: Pipeline, encoder: Encoder) -> AbstractContextManager[Sampler]:
    sampler = open_sampler(panel.checkpoints, pipe, panel.protocol, encoder.folder, encoder.keys_values)
    return nullcontext(sampler) if encoder.steering is None else steering(sampler, panel.checkpoints, encoder.steering)


def _key(checkpoints: Checkpoints, encoder: Encoder) -> object:
    plain = adapter_key(checkpoints, encoder.folder, encoder.keys_values)
    return plain if encoder.steering is None else [plain, steering_key(checkpoints, encoder.steering)]


def _judge_spread(
    plan: Plan, spread: Plan, encoders: Mapping[str, Encoder], judges: Judges, work: Path
) -> pd.DataFrame:
    folder, further = work / PICTURES, missing(spread, plan)
    base = list(read_pictures(folder / MORE / BASE))
    rows = list(spread_rows(BASE, spread.shots, base, base, judges))
    for method in (name for name, encoder in encoders.items() if encoder.spread):
        drawn = zip(plan.shots, read_pictures(folder / method), strict=True)
        more = zip(further.shots, read_pictures(folder / MORE / method), strict=True)
        rows += spread_rows(method, spread.shots, gather(spread, itertools.chain(drawn, more)), base, judges)
    return save_rows(as_table(rows), work / "spread.parquet")


def _metrics(table: pd.DataFrame, spread: pd.DataFrame, judges: Judges, settings: Evaluate, plan: Plan) -> Metrics:
    resampling = settings.bootstrap, settings.seed
    diverse = summarise(spread, *resampling, SPREAD)
    unmeasured = dict.fromkeys(SPREAD, Interval(None, None, None))  # of methods without further noises
    pictures = summarise(table, *resampling)
    metrics = {group: values | diverse.get(group, unmeasured) for group, values in pictures.items()}
    own = [embeddings["report"] for embeddings in judges.references]
    others = [[photo["report"] for photo in photos] for photos in judges.others]
    scale = scale_of_identity(own, others, *resampling)
    scale |= scale_of_spread(spread[spread["method"] == BASE], *resampling)
    return metrics | joined(by_kind(table, groups(settings, plan.styles), *resampling)) | {"scale": scale}
