"""The whole search: studies, trials, confirmation, results; started again, it adds what is missing.

Studies are in an SQLite file, or in PostgreSQL for several machines; a heartbeat shows that their workers live.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import torch
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import GridSampler, TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.study import MaxTrialsCallback, StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from lookahead.artifacts import code_digest, digest, digest_paths, files_below, local_paths
from lookahead.config import Heartbeat, Search, check_storage, with_overrides
from lookahead.errors import InputError
from lookahead.search import objective
from lookahead.search.objective import FAILURES, METRICS, REASON, SCORES, Scores, Task, complete, first_number
from lookahead.search.results import DEFAULT, compare, write_results

if TYPE_CHECKING:
    from lookahead.tracking import Recorder

HOPELESS = 3  # failed trials without any other: something else than the settings is wrong
Objective = Callable[[optuna.Trial], float | tuple[float, ...]]
# Folders that can change a trial's numbers; pages, tables and tracking cannot.
CODE = (
    *(
        "artifacts.py",
        "portraits.py",
        "dataset/prompts.py",
        "evaluation/pictures.py",
        "evaluation/samplers.py",
        "evaluation/scores.py",
        "features",
    ),
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
    task: Task, open_record: Callable[[str], Recorder], tell: Callable[[str], object], out: Path | None
) -> dict[str, Any]:
    """Run what is missing of the study and of its confirmation, write the results into `out`, return the lineage.

    `open_record` opens the record of a study by its name; without `out` this worker only helps others.
    """
    search, world, file = task.search, task.world, task.state / "studies.db"
    objective.check_space(search, world.train)
    inputs, first = inputs_of(task), objective.present(search.space, world.train)
    storage = open_storage(task.address, file, search.heartbeat)
    goals = METRICS if search.mode == "pareto" else METRICS[:1]
    study = open_study(storage, file, world.name, inputs, goals, first, tell)
    if search.mode == "constrained":  # Optuna prunes by one objective
        study.pruner = optuna.pruners.MedianPruner(search.startup)
    inputs["length"] = digest(search.confirm.model_dump(mode="json", exclude={"settings"}), world.train.steps)
    grid = open_study(storage, file, f"{world.name}-confirm", inputs, METRICS)
    record = open_record(study.study_name)
    try:
        _run_trials(task, record, study)
        base = objective.untuned(task, study)
        numbers = chosen(study, search, objective.mean_scores(base)["prompt"] - search.prompt_loss)
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
    study.sampler = TPESampler(n_startup_trials=search.startup, multivariate=True, group=True, seed=seed)
    limits = ((TrialState.COMPLETE, TrialState.PRUNED), (TrialState.FAIL,))
    if all(len(study.get_trials(deepcopy=False, states=states)) < search.trials for states in limits):
        stop = [MaxTrialsCallback(search.trials, states=states) for states in limits]
        optimize(study, partial(objective.search_trial, task, record), search.heartbeat.retries, *stop)
    if not complete(study):
        raise InputError(f"no trial of {study.study_name} is complete: look at studies.search of {task.world.name}")


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
    values = objective.present(space, train) if setting == DEFAULT else study.get_trials(deepcopy=False)[setting].params
    settings = with_overrides(train, objective.as_overrides(space, values) | {"seed": seed})
    evaluate = task.settings(own.split, own.seeds[0], people=own.people)
    recorded = {"setting": setting, **values}
    means = objective.run_trial(task, record, trial, f"confirm-{setting}-{seed}", settings, recorded, evaluate)
    return tuple(means[metric] for metric in METRICS)


def confirmed(grid: optuna.Study) -> dict[tuple[int, int], Scores]:
    """Scores by setting and training seed."""
    return {(trial.params["setting"], trial.params["seed"]): trial.user_attrs[SCORES] for trial in complete(grid)}


def open_storage(address: str | None, file: Path, heartbeat: Heartbeat) -> RDBStorage:
    """The storage at an address, or the SQLite file; one process of a machine at a time creates its tables."""
    check_storage(address)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # heartbeat, groups, figures
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(file.with_suffix(".lock")):
            return RDBStorage(
                address or f"sqlite:///{file}",
                engine_kwargs={"pool_pre_ping": True} if address else {"connect_args": {"timeout": 60}},
                heartbeat_interval=heartbeat.interval,
                grace_period=heartbeat.grace,
                heartbeat_stale_trial_callback=retry(heartbeat.retries),
            )
    except SQLAlchemyError as error:
        where, reason = address.split("@")[-1] if address else file, str(error).splitlines()[0]
        mend = "is the server running?" if address else "free disk space, or move a damaged file away to begin anew"
        raise InputError(f"the storage {where} cannot be opened ({reason:.200}): {mend}") from None


def open_study(
    storage: RDBStorage,
    file: Path,
    kind: str,
    inputs: Mapping[str, str],
    goals: Sequence[str],
    first: Mapping[str, Any] | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> optuna.Study:
    """The study whose name holds a digest of its inputs; of a new one `tell` says how it differs from the last one.

    `goals` are the names of what is maximised, `first` the parameters of its first trial.
    """
    name, directions = f"{kind}-{digest(inputs)[:6]}", [StudyDirection.MAXIMIZE] * len(goals)
    with FileLock(file.with_suffix(".lock")):
        summaries = optuna.get_all_study_summaries(storage)
        study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True, directions=directions)
        study.set_metric_names(list(goals))
        optuna.storages.fail_stale_trials(study)  # of killed workers: without it only a further trial would do that
        if first is not None:
            study.enqueue_trial(dict(first), skip_if_exists=True)
        if "inputs" not in study.user_attrs:
            study.set_user_attr("inputs", dict(inputs))
            news = f"new study {name}"
            for last in [one for one in summaries if one.study_name.rpartition("-")[0] == kind][-1:]:
                before = last.user_attrs.get("inputs", {})
                changed = ", ".join(part for part in inputs if before.get(part) != inputs[part])
                news += f": other {changed} than {last.study_name}, which is kept"
            tell(news)
    return study


def retry(retries: int) -> RetryHeartbeatStaleTrialCallback:
    """What queues a trial again whose worker has stopped, with what its checks have reported."""
    return RetryHeartbeatStaleTrialCallback(retries, inherit_intermediate_values=True)


def optimize(study: optuna.Study, run: Objective, retries: int, *stop: Callable[..., None]) -> None:
    """`study.optimize` that goes on after failures, keeps their reasons, and queues an interrupted trial again."""

    def recorded(trial: optuna.Trial) -> float | tuple[float, ...]:
        try:
            return run(trial)
        except (optuna.TrialPruned, *FAILURES) as error:
            trial.set_user_attr(REASON, f"{type(error).__name__}: {error}".splitlines()[0][:300])
            raise
        except KeyboardInterrupt:
            retry(retries)(study, study.get_trials()[trial.number])
            raise
        finally:
            torch.cuda.empty_cache()  # of a trial that ran out of memory; nothing happens without a GPU

    while True:
        try:
            return study.optimize(recorded, catch=FAILURES, callbacks=[_stop_if_hopeless, *stop])
        except (ValueError, UpdateFinishedTrialError) as error:
            if isinstance(error, ValueError) and "Cannot tell" not in str(error):
                raise
            # Another worker took this one for dead and runs its trial again.


def _stop_if_hopeless(study: optuna.Study, _trial: FrozenTrial) -> None:
    trials = study.get_trials(deepcopy=False)
    reasons = [trial.user_attrs[REASON] for trial in trials if REASON in trial.user_attrs]
    useful = any(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    if len(reasons) >= HOPELESS and not useful:
        raise InputError(f"all of the first {len(reasons)} trials failed, the last one so: {reasons[-1]}")
