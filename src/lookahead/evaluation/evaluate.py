"""The main evaluation: every cell draws the same people from the same noise; tables with intervals are written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lookahead.artifacts import Log, atomic, code_digest, digest, write_json
from lookahead.config import Checkpoints, Evaluate
from lookahead.evaluation import spread
from lookahead.evaluation.cells import BASE, CONTRASTS, FULL, STEERED, TUNED, UNTUNED, base_cell, main_cells
from lookahead.evaluation.contrasts import ALL, contrasts, person_means, summary
from lookahead.evaluation.evaluator import Evaluator, open_evaluator, save_table
from lookahead.evaluation.previews import measure_previews
from lookahead.evaluation.protocol import describe, groups
from lookahead.evaluation.statistics import Array, crossed_interval
from lookahead.portraits import Person
from lookahead.world.distributed import is_main_process

PER_IMAGE = "per_image.parquet"
HEADLINE = ("identity", "prompt", "clip_t", "detected")
FURTHER = (
    "style_right",
    "scene_right",
    "identity_select",
    "identity_loss",
    "identity_detected",
    "identity_other",
    "copied",
    "leak",
)
BOTH = ("identity", "prompt")  # what is shown of groups of pictures
SCALE = "scale"  # the cell of what identity, diversity and layout could be


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
    """Compare the untuned adapter, the noise-only and the lookahead-tuned encoder on people never seen (design, 5).

    Writes `metrics.json` (the headline), `intervals.json`, `summary.csv`, `contrasts.csv`, `per_image.parquet`,
    `spread.parquet`, `previews.csv`, `protocol.json` and `pictures/` into `work`. Every process of a launch calls this.

    Args:
        checkpoints: the world.
        settings: the evaluation.
        encoders: the folders of `noise_only` and `tuned`.
        training_seed: theirs.
        work: the folder to write to.
        log: receives the headline.
        cache: keeps pictures, scores and measurements: what it holds is neither drawn nor scored again.

    Raises:
        InputError: portraits, prompts or a checkpoint are missing or wrong, or a reference photo shows no face.
    """
    cells = main_cells(encoders, settings, training_seed)
    evaluator = open_evaluator(checkpoints, settings)
    diverse = [cell for cell in cells if cell.name != STEERED]  # a steered step costs several plain ones
    own = evaluator.plan
    spread.spread_plan(own, settings)  # refuses wrong numbers before anything is drawn
    table = evaluator.run(cells, work / "pictures", cache)
    further = spread.measure_spread(evaluator, diverse, base_cell(settings.sampling), cache)
    untuned = next(cell for cell in cells if cell.name == UNTUNED)
    previews = measure_previews(evaluator, untuned, cache)
    kinds = {style: name for name, styles in groups(settings, own.styles).items() for style in styles}
    grouped = table.assign(prompts=table["style"].map(kinds))
    means = pd.concat([*summaries(grouped, further), *_scale(evaluator, further, cache)], ignore_index=True)
    changes = pd.concat(_contrasts(grouped, further, settings.margin), ignore_index=True)
    protocol = describe(settings, checkpoints, evaluator.people, own)
    found = Tables(table, means, changes, previews, evaluator.people, protocol)
    if is_main_process():
        _save(found, further, work)
        log(headline(means, changes), 0)
    return found


def summaries(table: pd.DataFrame, further: pd.DataFrame) -> list[pd.DataFrame]:
    """The means over all pictures, over further noises, and in each group of prompts, style and scene."""
    cells = further[further["cell"] != BASE]
    parts = [summary(table, BOTH, column) for column in ("prompts", "style", "scene")]
    return [summary(table, HEADLINE + FURTHER), summary(cells, spread.METRICS), *parts]


def _contrasts(table: pd.DataFrame, further: pd.DataFrame, margin: Mapping[str, float]) -> list[pd.DataFrame]:
    """The contrasts of the same parts; each part is a table of its own in Holm's correction, the headline first."""
    parts = [contrasts(table, CONTRASTS, BOTH, column, margin) for column in ("prompts", "style", "scene")]
    found = [contrasts(table, CONTRASTS, HEADLINE, margin=margin), contrasts(table, CONTRASTS, FURTHER)]
    return [*found, contrasts(further, CONTRASTS, spread.METRICS), *parts]


def _scale(evaluator: Evaluator, further: pd.DataFrame, cache: Path) -> list[pd.DataFrame]:
    """What identity could be, and the base model's own diversity and the layout that it keeps by chance."""

    def measure() -> pd.DataFrame:
        scorers = evaluator.scorers
        others = [[photo["report"] for photo in photos] for photos in scorers.others]
        return scale_of_identity([own["report"] for own in scorers.references], others)

    key = digest(SCALE, evaluator.score_key, code_digest("evaluation/evaluate.py", "evaluation/statistics.py"))
    base = person_means(further[further["cell"] == BASE], ("diversity", "layout_other"))
    spreads = {"base_diversity": base["diversity"][1], "layout_chance": base["layout_other"][1]}
    return [evaluator.cached(cache, key[:32], measure), scale_rows(spreads)]


def scale_of_identity(references: Sequence[Array], others: Sequence[Sequence[Array]]) -> pd.DataFrame:
    """Identity of another photo of the same person (`same_person`), and of someone else (`stranger`).

    Args:
        references: for each person (D,) the unit embedding of the reference photo.
        others: for each person those of the other photos; there may be none.
    """
    cosines = np.stack(references) @ np.stack(references).T
    strangers = (cosines.sum(1) - cosines.diagonal()) / (len(references) - 1)
    same = [
        np.mean([own @ photo for photo in photos]) if photos else np.nan
        for own, photos in zip(references, others, strict=True)
    ]
    return scale_rows({"same_person": np.array([same]), "stranger": strangers[None]})


def scale_rows(values: Mapping[str, Array]) -> pd.DataFrame:
    """Rows of a summary from arrays (1, P) by metric."""
    where = {"cell": SCALE, "sampler": FULL, "group": ALL}
    rows = [where | {"metric": name} | asdict(crossed_interval(array)) for name, array in values.items()]
    return pd.DataFrame(rows).drop(columns="p")


def headline(means: pd.DataFrame, changes: pd.DataFrame) -> dict[str, float]:
    """The few numbers that runs are compared by: the tuned encoder's means, and what tuning and the loss change."""
    overall = means[(means["group"] == ALL) & (means["cell"] == TUNED) & means["metric"].isin(HEADLINE)]
    numbers = {str(row.metric): float(row.mean) for row in overall.itertuples()}
    pairs = changes[(changes["group"] == ALL) & changes["metric"].isin(BOTH)]
    return numbers | {f"{row.contrast}_{row.metric}": float(row.mean) for row in pairs.itertuples()}


def as_intervals(means: pd.DataFrame, changes: pd.DataFrame) -> dict[str, dict[str, dict[str, object]]]:
    """The intervals over all pictures by cell or contrast, then by metric; null where nothing was measured."""
    found: dict[str, dict[str, dict[str, object]]] = {}
    for frame, column in ((means, "cell"), (changes, "contrast")):
        for row in frame[frame["group"] == ALL].to_dict("records"):
            numbers = {name: None if math.isnan(row[name]) else row[name] for name in ("mean", "low", "high")}
            entry = numbers | {"people": row["people"], "seeds": row["seeds"]}
            name = row[column] if row["sampler"] == FULL else f"{row[column]}, {row['sampler']}"
            found.setdefault(name, {})[row["metric"]] = entry
    return found


def save_csv(frame: pd.DataFrame, path: Path) -> None:
    """Write a table with six digits; equal tables are equal bytes."""
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def _save(found: Tables, further: pd.DataFrame, work: Path) -> None:
    save_table(found.table, work / PER_IMAGE)
    save_table(further, work / "spread.parquet")
    for name, frame in (("previews", found.previews), ("summary", found.summary), ("contrasts", found.contrasts)):
        save_csv(frame, work / f"{name}.csv")
    write_json(work / "metrics.json", headline(found.summary, found.contrasts))
    write_json(work / "intervals.json", as_intervals(found.summary, found.contrasts))
    write_json(work / "protocol.json", found.protocol)
