"""The whole search: trials, confirmation, results; started again, it adds what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from lookahead.artifacts import code_digest, digest, digest_paths, files_below, local_paths
from lookahead.config import Evaluate, Search, World, read_evaluate
from lookahead.errors import InputError
from lookahead.search.confirm import chosen, compare, complete, confirm, confirmed_scores
from lookahead.search.results import Outcome, write_results
from lookahead.search.scores import METRICS, mean_scores
from lookahead.search.space import check_space, present
from lookahead.search.storage import open_storage, open_study
from lookahead.search.trial import Context, Recorder, optimize, search_trial, untuned

# Folders that can change a trial's numbers; pages, tables and tracking cannot.
CODE = (
    "artifacts.py",
    "portraits.py",
    "dataset/prompts.py",
    "evaluation/drawing",
    "evaluation/scoring",
    "features",
    "method",
    "models",
    "sampling",
)
CODE += ("training", "world", "search/space.py", "search/scores.py", "search/trial.py")
# Changing these continues a study.
OPEN = {"trials", "workers", "confirm", "heartbeat", "contours", "startup", "space"}
TRACKED = "tracked"  # the study's attribute that names its run in the history


@dataclass(frozen=True)
class Task:
    """A search in a world: where features lie, where studies and trials are kept, which worker this is."""

    name: str  # of the world
    world: World
    search: Search
    features: Path
    state: Path
    tell: Callable[[str], None]
    address: str | None = None  # of a storage that several machines share
    worker: str = ""  # others than the first of a machine draw other settings


def inputs_of(world: World, settings: Evaluate, search: Search, features: Path) -> dict[str, str]:
    """Digests by name: equal ones mean that earlier trials count."""
    tree = world.model_dump(mode="json", include={"checkpoints", "train"}, exclude={"train": {"steps", "seed"}})
    evaluate = settings.model_dump(mode="json", exclude={"steering"})  # which no trial is drawn with
    folders = [Path(getattr(settings.splits, split)) for split in (search.split, search.confirm.split)]
    sizes = [(file.relative_to(features).as_posix(), file.stat().st_size) for file in files_below(features)]
    data = sorted({*local_paths(tree["checkpoints"]), *folders, Path(settings.prompts), features / "table.parquet"})
    return {
        "space": digest({name: one.model_dump(mode="json") for name, one in search.space.items()}),
        "settings": digest(tree, evaluate, search.model_dump(mode="json", exclude=OPEN)),
        "data": digest(digest_paths(data), sizes),  # a large dataset is not read for its name
        "code": code_digest(*CODE),
    }


def run_search(task: Task, record: Callable[[str], Recorder], out: Path | None) -> dict[str, Any]:
    """Run what is missing of the study and of its confirmation, write the results into `out`, return the lineage.

    Args:
        task: what is searched.
        record: opens the record of the study of a name.
        out: the folder of the results; None for a worker that only helps.
    """
    search, world, file = task.search, task.world, task.state / "studies.db"
    check_space(search, world.train)
    settings = read_evaluate(world.evaluate)
    inputs = inputs_of(world, settings, search, task.features)
    storage = open_storage(task.address, file, search.heartbeat)
    first, goals = present(search.space, world.train), METRICS if search.mode == "pareto" else METRICS[:1]
    pruner = None if len(goals) > 1 else optuna.pruners.MedianPruner(search.startup)  # Optuna prunes by one objective
    options = {"directions": ["maximize"] * len(goals), "pruner": pruner}
    study, news = open_study(storage, file, task.name, inputs, first, **options)
    study.set_metric_names(list(goals))
    if news:
        task.tell(news)
    length = digest(search.confirm.model_dump(mode="json", exclude={"settings"}), world.train.steps)
    grid, _ = open_study(
        storage, file, f"{task.name}-confirm", inputs | {"length": length}, {}, directions=["maximize"] * 2
    )
    context = Context(world, settings, search, task.features, task.state / study.study_name, record(study.study_name))
    try:
        _run_trials(task, context, study)
        base = untuned(context, study)
        numbers = chosen(study, search, mean_scores(base)["prompt"] - search.prompt_loss)
        confirm(context, study, grid, numbers)
        if out is not None:
            found = compare(confirmed_scores(grid), numbers, search.confirm.seeds, settings.margin)
            write_results(Outcome(task.name, world, search, study, base, found), out)
    except BaseException:
        context.record.finish(None)
        raise
    return context.record.finish(out)


def _run_trials(task: Task, context: Context, study: optuna.Study) -> None:
    search = task.search
    seed = int(digest(search.seed, len(study.get_trials(deepcopy=False)), task.worker)[:8], 16)
    study.sampler = optuna.samplers.TPESampler(
        n_startup_trials=search.startup, multivariate=True, group=True, seed=seed
    )
    limits = ((TrialState.COMPLETE, TrialState.PRUNED), (TrialState.FAIL,))
    if all(len(study.get_trials(deepcopy=False, states=states)) < search.trials for states in limits):
        stop = [MaxTrialsCallback(search.trials, states=states) for states in limits]
        optimize(study, partial(search_trial, context), search.heartbeat.retries, *stop)
    if not complete(study):
        raise InputError(f"no trial of {study.study_name} is complete: look at studies.search.{task.name}")
