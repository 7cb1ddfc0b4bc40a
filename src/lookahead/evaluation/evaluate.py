"""The tables of the main evaluation and of studies: means, contrasts and intervals of cells, all of the same people."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from lookahead.artifacts import Log, atomic, code_digest, digest, write_json
from lookahead.config import Checkpoints, Evaluate, Study
from lookahead.errors import InputError
from lookahead.evaluation import spread
from lookahead.evaluation.cells import BASE, CONTRASTS, FULL, TUNED, base_cell, describe, groups, main_cells
from lookahead.evaluation.contrasts import ALL, Contrast, contrasts, person_means, summary
from lookahead.evaluation.evaluator import Evaluator, open_evaluator, read_table, save_table
from lookahead.evaluation.previews import measure_previews, people_shown
from lookahead.evaluation.statistics import Array, crossed_interval
from lookahead.portraits import Person
from lookahead.world.distributed import is_main_process

PER_IMAGE, PICTURES = "per_image.parquet", "pictures"
HEADLINE = ("identity", "prompt", "clip_t", "detected")
_IDENTITIES = ("identity_select", "identity_loss", "identity_detected", "identity_other")
FURTHER = ("style_right", "scene_right", *_IDENTITIES, "copied", "leak")
BOTH = ("identity", "prompt")  # what is shown of groups of pictures
_GROUPS = ("prompts", "style", "scene")
SCALE = "scale"  # the pseudo-cell of reference levels: same person, stranger, base model


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
    plan, plain = evaluator.plan, [cell for cell in cells if cell.sampling.steering is None]  # steered ones cost more
    spread.spread_plan(plan, settings)  # this and the next refuse wrong numbers before anything is drawn
    people_shown(evaluator)
    table = evaluator.run(cells, work / PICTURES, cache)
    further = spread.measure_spread(evaluator, plain, base_cell(settings.sampling), cache)
    previews = measure_previews(evaluator, cells[0], cache)
    kinds = {style: name for name, styles in groups(settings, plan.styles).items() for style in styles}
    grouped = table.assign(prompts=table["style"].map(kinds))
    means = _means(grouped, further[further["cell"] != BASE], _scale(evaluator, further, cache))
    changes = _changes(grouped, further, settings.margin)
    protocol = describe(settings, checkpoints, evaluator.people, plan)
    if is_main_process():
        save_table(table, work / PER_IMAGE)
        save_table(further, work / "spread.parquet")
        for name, frame in (("previews", previews), ("summary", means), ("contrasts", changes)):
            with atomic(work / f"{name}.csv") as path:
                frame.to_csv(path, index=False, float_format="%.6g", lineterminator="\n")
        write_json(work / "metrics.json", headline(means, changes))
        write_json(work / "intervals.json", as_intervals(means, changes))
        write_json(work / "protocol.json", protocol)
        log(headline(means, changes), 0)
    return Tables(table, means, changes, previews, evaluator.people, protocol)


def _means(table: pd.DataFrame, further: pd.DataFrame, scale: list[pd.DataFrame]) -> pd.DataFrame:
    """The means over all pictures, over further noises, in each group of prompts, style and scene, and the scale."""
    parts = [summary(table, BOTH, column) for column in _GROUPS]
    found = [summary(table, HEADLINE + FURTHER), summary(further, spread.METRICS), *parts, *scale]
    return pd.concat(found, ignore_index=True)


def _changes(table: pd.DataFrame, further: pd.DataFrame, margin: Mapping[str, float]) -> pd.DataFrame:
    """The contrasts of the same parts, the headline first."""
    parts = [contrasts(table, CONTRASTS, BOTH, column, margin) for column in _GROUPS]
    found = [contrasts(table, CONTRASTS, HEADLINE, margin=margin), contrasts(table, CONTRASTS, FURTHER)]
    return pd.concat([*found, contrasts(further, CONTRASTS, spread.METRICS), *parts], ignore_index=True)


def _scale(evaluator: Evaluator, further: pd.DataFrame, cache: Path) -> list[pd.DataFrame]:
    """What identity could be, and the base model's own diversity and the layout that it keeps by chance."""

    def measure() -> pd.DataFrame:
        scorers = evaluator.scorers
        others = [[photo["report"] for photo in photos] for photos in scorers.others]
        return scale_of_identity([own["report"] for own in scorers.references], others)

    key = digest(SCALE, evaluator.score_key, code_digest("evaluation/evaluate.py", "evaluation/statistics.py"))
    base = person_means(further[further["cell"] == BASE], ("diversity", "layout_other"))
    spreads = {"base_diversity": base["diversity"].to_numpy(), "layout_chance": base["layout_other"].to_numpy()}
    return [evaluator.cached(cache, key[:32], measure), _scale_rows(spreads)]


def scale_of_identity(references: Sequence[Array], others: Sequence[Sequence[Array]]) -> pd.DataFrame:
    """Identity of another photo of the same person (`same_person`), and of someone else (`stranger`).

    By person the unit embedding (D,) of the reference photo, and those of the other photos, of which there may be none.
    """
    cosines = np.stack(references) @ np.stack(references).T
    strangers = (cosines.sum(1) - cosines.diagonal()) / (len(references) - 1)
    pairs = zip(references, others, strict=True)
    same = [np.mean([own @ photo for photo in photos]) if photos else np.nan for own, photos in pairs]
    return _scale_rows({"same_person": np.array([same]), "stranger": strangers[None]})


def _scale_rows(values: Mapping[str, Array]) -> pd.DataFrame:
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


def runs_of(study: Study) -> list[tuple[str, int]]:
    """The cells and seeds that count: all seeds of a training, else the first, as the others are the same."""
    seeds = {True: study.seeds, False: study.seeds[:1]}
    return [(name, seed) for name, cell in study.cells.items() for seed in seeds[cell.trained]]


def read_study(study: Study, folder: Path) -> pd.DataFrame:
    """The long table of a study, from one folder `<cell>/<seed>` a cell."""
    tables = []
    for name, seed in runs_of(study):
        path = folder / name / str(seed) / PER_IMAGE
        tables.append(read_table(path))
        if tables[-1]["person"].nunique() != study.people:
            raise InputError(f"{path} is of another study than params.yaml describes: run its stage `cell` again")
    return pd.concat(tables, ignore_index=True)


def study_tables(study: Study, table: pd.DataFrame, settings: Evaluate) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The means, and the contrasts of every cell with those that it names."""
    pairs = [Contrast(f"{name} - {other}", name, other) for name, cell in study.cells.items() for other in cell.against]
    rest = [metric for metric in HEADLINE + FURTHER if metric not in BOTH]
    changes = [contrasts(table, pairs, BOTH, margin=settings.margin), contrasts(table, pairs, rest)]
    return summary(table, HEADLINE + FURTHER), pd.concat(changes, ignore_index=True)


@contextmanager
def gathered_pictures(study: Study, folder: Path) -> Iterator[Path]:
    """A folder with the pictures of all cells, `<cell>/<sampler>/<training seed>`; it is removed afterwards."""
    with TemporaryDirectory() as gathered:
        for name, seed in runs_of(study):
            source = (folder / name / str(seed) / PICTURES / name).resolve()
            shutil.copytree(source, Path(gathered, name), copy_function=os.symlink, dirs_exist_ok=True)
        yield Path(gathered)
