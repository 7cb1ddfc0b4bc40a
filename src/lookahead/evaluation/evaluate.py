"""The main evaluation: its cells drawn and scored, and the means and contrasts of their pictures, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lookahead.artifacts import Log, code_digest, digest, write_json
from lookahead.config import Checkpoints, Evaluate
from lookahead.evaluation import spread
from lookahead.evaluation.cells import (
    BASE,
    FULL,
    INVENTED,
    TUNED,
    base_cell,
    describe,
    groups,
    main_cells,
    main_contrasts,
)
from lookahead.evaluation.contrasts import ALL, UNTRAINED, contrasts, summary
from lookahead.evaluation.evaluator import Evaluator, open_evaluator, save_csv, save_table
from lookahead.evaluation.previews import measure_previews
from lookahead.evaluation.statistics import Array
from lookahead.portraits import Person
from lookahead.world.distributed import is_main_process

PER_IMAGE, PICTURES = "per_image.parquet", "pictures"
# Metrics of the long table: the two that choices are made by, those of the headline, and the others.
PRIMARY = ("identity", "prompt")
HEADLINE = (*PRIMARY, "clip_t", "detected")
FURTHER = ("identity_select", "identity_loss", "identity_detected", "identity_other", "copied", "leak")
SCALE = "scale"  # a cell without pictures: what identity, diversity and layout are of photos and of the base model


@dataclass(frozen=True)
class Tables:
    """What an evaluation measured: one row a picture, means, contrasts, previews, and of whom."""

    table: pd.DataFrame
    summary: pd.DataFrame
    contrasts: pd.DataFrame
    previews: pd.DataFrame
    people: list[Person]
    protocol: dict[str, object]


def evaluate(
    checkpoints: Checkpoints,
    settings: Evaluate,
    encoders: Mapping[str, Path],
    training_seed: int,
    work: Path,
    log: Log,
    cache: Path,
) -> Tables:
    """Compare the untuned adapter, the noise-only and the lookahead-tuned encoder on people never seen.

    `encoders` are the folders of `noise_only` and `tuned`, of this training seed; what `cache` holds is neither drawn
    nor scored again. Writes `metrics.json` (the headline, which `log` receives too), `intervals.json`, `summary.csv`,
    `contrasts.csv`, `per_image.parquet`, `spread.parquet`, `previews.csv`, `protocol.json` and `pictures/` into `work`.
    Every process of a launch calls this.
    """
    cells = main_cells(encoders, settings, training_seed)
    evaluator = open_evaluator(checkpoints, settings)
    settings.check(sum(bool(person.others) for person in evaluator.people), len(evaluator.plan.styles))
    table = evaluator.run(cells, work / PICTURES, cache)
    repeated = [cell for cell in cells if cell.sampling.steering is None]  # steered pictures cost more
    spreads = spread.measure_spread(evaluator, repeated, base_cell(settings.sampling), cache)
    previews = measure_previews(evaluator, cells[0], cache)
    group_of = {style: name for name, styles in groups(settings, evaluator.plan.styles).items() for style in styles}
    table_by_group = table.assign(prompts=table["style"].map(group_of))
    grouped_by = ["prompts", *evaluator.plan.words]  # columns
    means = _means(table_by_group, spreads, _photo_scale(evaluator, cache), grouped_by)
    differences = _differences(table_by_group, spreads, settings, grouped_by)
    protocol = describe(settings, checkpoints, evaluator.people, evaluator.plan)
    if is_main_process():
        save_table(table, work / PER_IMAGE)
        save_table(spreads, work / "spread.parquet")
        for name, frame in (("previews", previews), ("summary", means), ("contrasts", differences)):
            save_csv(frame, work / f"{name}.csv")
        write_json(work / "metrics.json", headline(means, differences))
        invented = {INVENTED: protocol[INVENTED]} if INVENTED in protocol else {}
        write_json(work / "intervals.json", as_intervals(means, differences) | invented)
        write_json(work / "protocol.json", protocol)
        log(headline(means, differences), 0)
    return Tables(table, means, differences, previews, evaluator.people, protocol)


def rights(table: pd.DataFrame) -> tuple[str, ...]:
    """The parts of `prompt`, by kind of what was asked for."""
    return tuple(column for column in table if column.endswith("_right"))


def _means(table: pd.DataFrame, spreads: pd.DataFrame, photos: pd.DataFrame, grouped_by: Sequence[str]) -> pd.DataFrame:
    """Means over all pictures, over several noises, in each group of prompts and by each word, and the scale."""
    drawn, base = spreads[spreads["cell"] != BASE], spreads[spreads["cell"] == BASE].assign(cell=SCALE)
    base = base.rename(columns={"diversity": "base_diversity", "layout_other": "layout_chance"})
    parts = [summary(table, HEADLINE + rights(table) + FURTHER), summary(drawn, spread.METRICS)]
    parts += [summary(table, PRIMARY, column) for column in grouped_by]
    parts += [summary(photos, ("same_person", "stranger")), summary(base, ("base_diversity", "layout_chance"))]
    return pd.concat(parts, ignore_index=True)


def _differences(
    table: pd.DataFrame, spreads: pd.DataFrame, settings: Evaluate, grouped_by: Sequence[str]
) -> pd.DataFrame:
    """The contrasts of the same parts, the headline first."""
    pairs, margin = main_contrasts(settings), settings.margin
    parts = [contrasts(table, pairs, HEADLINE, margin=margin), contrasts(table, pairs, rights(table) + FURTHER)]
    parts += [contrasts(spreads, pairs, spread.METRICS)]
    parts += [contrasts(table, pairs, PRIMARY, column, margin) for column in grouped_by]
    return pd.concat(parts, ignore_index=True)


def _photo_scale(evaluator: Evaluator, cache: Path) -> pd.DataFrame:
    def measure() -> pd.DataFrame:
        scorers = evaluator.scorers
        others = [[photo["report"] for photo in photos] for photos in scorers.others]
        return photo_scale([reference["report"] for reference in scorers.references], others)

    key = digest(SCALE, evaluator.score_key, code_digest("evaluation/evaluate.py"))
    return evaluator.cached(cache, key[:32], measure)


def photo_scale(references: Sequence[Array], others: Sequence[Sequence[Array]]) -> pd.DataFrame:
    """Identity of another photo of the same person (`same_person`, NaN if there is none) and of others (`stranger`).

    By person the unit embedding (D,) of the reference photo, and those of the other photos. A row a person.
    """
    cosines = np.stack(references) @ np.stack(references).T
    strangers = (cosines.sum(1) - cosines.diagonal()) / (len(references) - 1)
    pairs = zip(references, others, strict=True)
    same = [np.mean([own @ photo for photo in photos]) if photos else np.nan for own, photos in pairs]
    where = {"cell": SCALE, "sampler": FULL, "training_seed": UNTRAINED, "person": range(len(references))}
    return pd.DataFrame(where | {"same_person": same, "stranger": strangers})


def headline(means: pd.DataFrame, differences: pd.DataFrame) -> dict[str, float]:
    """The few numbers that runs are compared by: the tuned encoder's means, and what each part adds to identity.

    Prompt alignment is among them for tuning and for the loss; `dvc metrics show` fits into 160 columns.
    """
    overall = means[(means["group"] == ALL) & (means["cell"] == TUNED) & means["metric"].isin((*PRIMARY, "detected"))]
    numbers = {str(row.metric): float(row.mean) for row in overall.itertuples()}
    chosen = differences["metric"].eq("identity")
    chosen |= differences["metric"].eq("prompt") & differences["contrast"].isin(("tuning", "gain"))
    pairs = differences[(differences["group"] == ALL) & chosen]
    return numbers | {f"{row.contrast}_{row.metric}": float(row.mean) for row in pairs.itertuples()}


def as_intervals(means: pd.DataFrame, differences: pd.DataFrame) -> dict[str, dict[str, dict[str, object]]]:
    """The intervals over all pictures by cell or contrast, then by metric; null where nothing was measured."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for frame, column in ((means, "cell"), (differences, "contrast")):
        for row in frame[frame["group"] == ALL].to_dict("records"):
            numbers = {name: None if math.isnan(row[name]) else row[name] for name in ("mean", "low", "high")}
            entry = numbers | {"people": row["people"], "seeds": row["seeds"]}
            name = row[column] if row["sampler"] == FULL else f"{row[column]}, {row['sampler']}"
            found.setdefault(name, {})[row["metric"]] = entry
    return found
