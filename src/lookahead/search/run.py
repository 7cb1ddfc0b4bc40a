"""The whole search: trials, confirmation, results; started again, it adds what is missing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import GridSampler
from optuna.study import MaxTrialsCallback
from optuna.trial import FrozenTrial, TrialState

from lookahead.artifacts import code_digest, digest, digest_paths, files_below, local_paths
from lookahead.config import Search, with_overrides
from lookahead.errors import InputError
from lookahead.search import objective
from lookahead.search.objective import METRICS, SCORES, Scores, Task, mean_scores, present
from lookahead.search.results import DEFAULT, compare, write_results
from lookahead.search.study import complete, first_number, open_storage, open_study, optimize

if TYPE_CHECKING:
    from lookahead.tracking import Recorder

# Folders that can change a trial's numbers; pages, tables and tracking cannot.
CODE = (
    *("artifacts.py", "portraits.py", "dataset/prompts.py", "evaluation/drawing", "evaluation/scores.py", "features"),
    *("method", "models", "sampling", "search/objective.py", "training", "world"),
)
# Changing these continues a study.
OPEN = {"trials", "workers", "confirm", "heartbeat", "contours", "startup", "space"}


def inputs_of(task: Task) -> dict[str, str]:
    """Digests by name: equal ones mean that earlier trials count."""
    world, search, settings, features = task.world, task.search, task.evaluate, task.features
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


def run_search(
    task: Task, open_record: Callable[[str], Recorder], tell: Callable[[str], None], out: Path | None
) -> dict[str, Any]:
    """Run what is missing of the study and of its confirmation, write the results into `out`, return the lineage.

    `open_record` opens the record of a study by its name; without `out` this worker only helps others.
    """
    search, world, file = task.search, task.world, task.state / "studies.db"
    objective.check_space(search, world.train)
    inputs, first = inputs_of(task), present(search.space, world.train)
    storage = open_storage(task.address, file, search.heartbeat)
    goals = METRICS if search.mode == "pareto" else METRICS[:1]
    pruner = None if len(goals) > 1 else optuna.pruners.MedianPruner(search.startup)  # Optuna prunes by one objective
    options = {"directions": ["maximize"] * len(goals), "pruner": pruner}
    study, news = open_study(storage, file, task.name, inputs, first, **options)
    study.set_metric_names(list(goals))
    inputs["length"] = digest(search.confirm.model_dump(mode="json", exclude={"settings"}), world.train.steps)
    grid, _ = open_study(storage, file, f"{task.name}-confirm", inputs, {}, directions=["maximize"] * len(METRICS))
    if news:
        tell(news)
    record = open_record(study.study_name)
    try:
        _run_trials(task, record, study)
        base = objective.untuned(task, study)
        numbers = chosen(study, search, mean_scores(base)["prompt"] - search.prompt_loss)
        _confirm(task, record, study, grid, numbers)
        if out is not None:
            found = compare(confirmed(grid), numbers, search.confirm.seeds, task.evaluate.margin)
            write_results(task, study, base, found, out)
    except BaseException:
        record.finish(None)
        raise
    return record.finish(out)


def _run_trials(task: Task, record: Recorder, study: optuna.Study) -> None:
    search = task.search
    seed = int(digest(search.seed, len(study.get_trials(deepcopy=False)), task.worker)[:8], 16)
    study.sampler = optuna.samplers.TPESampler(
        n_startup_trials=search.startup, multivariate=True, group=True, seed=seed
    )
    limits = ((TrialState.COMPLETE, TrialState.PRUNED), (TrialState.FAIL,))
    if all(len(study.get_trials(deepcopy=False, states=states)) < search.trials for states in limits):
        stop = [MaxTrialsCallback(search.trials, states=states) for states in limits]
        optimize(study, partial(objective.search_trial, task, record), search.heartbeat.retries, *stop)
    if not complete(study):
        raise InputError(f"no trial of {study.study_name} is complete: look at studies.search of {task.name}")


def preferred(study: optuna.Study, search: Search, floor: float) -> list[int]:
    """The numbers of the settings to confirm, in the order of the rule; `floor` is the least prompt alignment."""
    front = study.best_trials if search.mode == "pareto" else complete(study)

    def key(trial: FrozenTrial) -> tuple[bool, float, int]:
        identity, prompt = trial.user_attrs["identity"], trial.user_attrs["prompt"]
        allowed = prompt >= floor
        return not allowed, -(identity if allowed else prompt), trial.number

    ranked = [trial.number for trial in sorted(front, key=key) if first_number(trial) != DEFAULT]
    return ranked[: search.confirm.settings]


def chosen(study: optuna.Study, search: Search, floor: float) -> list[int]:
    """The settings of the confirmation, params.yaml first; the first worker to get here decides for all."""
    key = f"preferred {digest(search.trials, search.prompt_loss, search.confirm.settings)[:6]}"
    if key not in study.user_attrs:
        study.set_user_attr(key, [DEFAULT, *preferred(study, search, floor)])
    return list(study.user_attrs[key])


def _confirm(task: Task, record: Recorder, study: optuna.Study, grid: optuna.Study, settings: list[int]) -> None:
    """Train and score every setting with every fresh seed; workers that share the study `grid` share this work."""
    grid.sampler = sampler = GridSampler({"setting": settings, "seed": task.search.confirm.seeds})
    if grid.get_trials(deepcopy=False, states=(TrialState.WAITING,)) or not sampler.is_exhausted(grid):
        optimize(grid, partial(_confirm_trial, task, record, study), task.search.heartbeat.retries)


def _confirm_trial(task: Task, record: Recorder, study: optuna.Study, trial: optuna.Trial) -> tuple[float, ...]:
    setting, seed = trial.suggest_int("setting", 0, 10**6), trial.suggest_int("seed", 0, 2**31 - 1)
    space, own, train = task.search.space, task.search.confirm, task.world.train
    params = study.get_trials(deepcopy=False)[setting].params
    values = present(space, train) if setting == DEFAULT else params
    settings = with_overrides(train, objective.as_overrides(space, values) | {"seed": seed})
    evaluate = task.settings(own.split, own.seeds[0], people=own.people)

    def known() -> Scores | None:  # the last ones may run in two workers
        return confirmed(trial.study).get((setting, seed))

    name, recorded = f"confirm-{setting}-{seed}", {"setting": setting, **values}
    means = objective.run_trial(task, record, trial, name, settings, recorded, evaluate, known=known)
    return tuple(means[metric] for metric in METRICS)


def confirmed(grid: optuna.Study) -> dict[tuple[int, int], Scores]:
    """Scores by setting and training seed."""
    return {(trial.params["setting"], trial.params["seed"]): trial.user_attrs[SCORES] for trial in complete(grid)}
