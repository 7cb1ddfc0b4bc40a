"""The evaluation: every method draws the same people from the same noise and is judged by the same models."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lookahead.artifacts import Log, write_json
from lookahead.config import Checkpoints, Evaluate
from lookahead.evaluation.album import save_album
from lookahead.evaluation.drawing import MORE, draw_all, open_evaluation, tell
from lookahead.evaluation.measure import Judges
from lookahead.evaluation.methods import BASE, Encoder
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
from lookahead.evaluation.panel import judged
from lookahead.evaluation.pictures import read_pictures
from lookahead.evaluation.plan import Plan
from lookahead.evaluation.previews import measure_previews, save_previews
from lookahead.evaluation.protocol import describe, groups
from lookahead.evaluation.series import save_series
from lookahead.evaluation.spread import gather, missing, spread_rows
from lookahead.evaluation.statistics import Interval
from lookahead.evaluation.tables import PER_IMAGE, as_table, save_rows
from lookahead.report.report import Findings, write_report

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

    Where the settings have `steering`, the lookahead-tuned one is also drawn with lookahead guidance.

    Writes `metrics.json`, `protocol.json`, `per_image.parquet`, `spread.parquet`, `previews.csv`, `groups.csv`,
    `preview_curves.csv`, `album.parquet`, `report.html`, `grids/` and `pictures/` into `work`. Pictures that `store`
    holds are not drawn again: a killed evaluation goes on, other judges only judge. Of several processes each draws a
    share, and the first one judges.

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
    tell(checkpoints, settings, variants, store)
    opened = open_evaluation(checkpoints, settings, variants, store)
    panel, encoders = opened.panel, opened.encoders
    people, plan, judges = panel.people, panel.plan, panel.judges
    draw_all(opened.drawings, work / PICTURES)
    previews = measure_previews(checkpoints, settings, people, panel.conditions, judges.faces)
    save_previews(previews, work / "previews.csv")
    table = pd.concat([judged(panel, method, work / PICTURES / method) for method in encoders], ignore_index=True)
    save_rows(table, work / PER_IMAGE)
    metrics = _metrics(table, _judge_spread(plan, opened.spread, encoders, judges, work), judges, settings, plan)
    write_json(work / "metrics.json", rows_of(metrics))
    protocol = describe(settings, checkpoints, people, plan)
    write_json(work / "protocol.json", protocol)
    save_series(table, previews, groups(settings, plan.styles), settings.bootstrap, settings.seed, work)
    save_album(people[: settings.grid_people], plan, work / PICTURES, list(encoders), work)
    write_report(Findings(people, plan, table, previews, metrics, protocol, settings), work / PICTURES, work)
    log(flatten(metrics), 0)


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
