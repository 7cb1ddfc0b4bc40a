"""A study: its name from everything that decides its numbers, its plan, and the work on it until nothing is left."""

from __future__ import annotations

import os
import socket
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
import psutil
import torch
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from lookahead.artifacts import digest
from lookahead.config import Search
from lookahead.errors import InputError
from lookahead.search.storage import NothingWaitsError, Storage

FAILURES = (InputError, MemoryError, RuntimeError)  # torch's "out of memory" is a RuntimeError
PATIENCE = 60.0  # seconds that a worker waits for the plan of the one that made the study
HOPELESS = 3  # failed trials without any other: something else than the settings is wrong
BOTH = ("identity", "prompt")  # the objectives, as people read them
SLOT, REASON, WORKER, RETRIES = "slot", "reason", "worker", "retries"
Tell = Callable[[str], None]
Objective = Callable[[optuna.Trial], float | tuple[float, ...]]


@dataclass(frozen=True)
class Slot:
    """One planned trial: fixed values of some parameters, and what else it is told."""

    values: Mapping[str, Any]
    told: Mapping[str, Any]


def study_name(kind: str, inputs: Mapping[str, str]) -> str:
    """A name that holds a digest of the inputs, so that other inputs are another study."""
    return f"{kind}-{digest(dict(inputs))[:12]}"


def open_study(
    kind: str, objectives: int, storage: Storage, search: Search, inputs: Mapping[str, str], tell: Tell
) -> tuple[optuna.Study, bool]:
    """The study of these inputs, and whether it is new; a new one says what differs from the last of its kind."""
    name = study_name(kind, inputs)
    known = [s for s in optuna.get_all_study_summaries(storage) if s.study_name.rpartition("-")[0] == kind]
    try:
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            directions=["maximize"] * objectives,
            pruner=_pruner(search, objectives),
        )
    except optuna.exceptions.DuplicatedStudyError:
        return optuna.load_study(study_name=name, storage=storage, pruner=_pruner(search, objectives)), False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(BOTH[:objectives]))
    study.set_user_attr("inputs", dict(inputs))
    tell(_news(name, known[-1] if known else None, inputs))
    return study, True


def _pruner(search: Search, objectives: int) -> optuna.pruners.BasePruner:
    if objectives > 1:
        return optuna.pruners.NopPruner()  # Optuna prunes by one objective only
    return optuna.pruners.MedianPruner(n_startup_trials=search.startup, n_warmup_steps=0)


def _news(name: str, last: Any, inputs: Mapping[str, str]) -> str:
    if last is None:
        return f"new study {name}"
    before = last.user_attrs.get("inputs", {})
    changed = [part for part in inputs if before.get(part) != inputs[part]]
    return f"new study {name}: other {', '.join(changed) or 'inputs'} than {last.study_name}, which is kept"


def is_settled(trial: FrozenTrial) -> bool:
    """Whether a trial counts: complete, pruned, or failed for a reason of its own or with too many workers."""
    if trial.state != TrialState.FAIL:
        return trial.state in (TrialState.COMPLETE, TrialState.PRUNED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        lost = len(RetryHeartbeatStaleTrialCallback.retry_history(trial))
    return REASON in trial.user_attrs or lost >= trial.user_attrs[RETRIES]


def settled(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that count, by slot."""
    return sorted((trial for trial in study.get_trials() if is_settled(trial)), key=lambda t: t.user_attrs[SLOT])


def await_plan(study: optuna.Study) -> None:
    """Wait until the worker that made the study has planned it, or for as long as that could take if it lived."""
    end = time.monotonic() + PATIENCE
    while "planned" not in study.user_attrs and time.monotonic() < end:
        time.sleep(0.2)


def plan(study: optuna.Study, slots: Mapping[int, Slot], search: Search) -> None:
    """Add what is missing of the planned trials."""
    open_states = (TrialState.WAITING, TrialState.RUNNING)
    there = {t.user_attrs[SLOT] for t in study.get_trials() if t.state in open_states or is_settled(t)}
    for number, slot in slots.items():
        if number not in there:
            study.enqueue_trial(dict(slot.values), {SLOT: number, RETRIES: search.heartbeat.retries, **slot.told})
    study.set_user_attr("planned", len(slots))


def worker() -> str:
    """Host, process and its start: the same process number can come again."""
    return f"{socket.gethostname()} {os.getpid()} {psutil.Process().create_time():.0f}"


def _lives(name: str) -> bool:
    host, pid, started = name.rsplit(" ", 2)
    if host != socket.gethostname():
        return True
    try:
        return f"{psutil.Process(int(pid)).create_time():.0f}" == started
    except psutil.NoSuchProcess:
        return False


def take_over(study: optuna.Study) -> None:
    """Put the trials of workers that died on this machine in line again; a journal has no heartbeat."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        name = trial.user_attrs.pop(WORKER, None)
        silent = trial.datetime_start is None or time.time() - trial.datetime_start.timestamp() > PATIENCE
        if silent if name is None else not _lives(name):
            study.tell(trial.number, state=TrialState.FAIL)
            RetryHeartbeatStaleTrialCallback(trial.user_attrs[RETRIES])(study, trial)


def open_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Those that wait or run."""
    return study.get_trials(states=(TrialState.WAITING, TrialState.RUNNING))


def work_off(study: optuna.Study, objective: Objective, search: Search, shared: bool) -> None:
    """Run planned trials until none waits and none runs, here or elsewhere; failed ones keep their reason.

    Raises:
        InputError: nothing but failures so far.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        while open_trials(study):
            if not shared:
                take_over(study)
            study.sampler = _sampler(study, search)
            try:
                study.optimize(lambda trial: _recorded(objective, trial), n_trials=1, catch=FAILURES)
            except NothingWaitsError:
                time.sleep(search.heartbeat.interval / 2 if shared else 1.0)
            _check_hope(settled(study))


def _sampler(study: optuna.Study, search: Search) -> optuna.samplers.BaseSampler:
    """Seeded by how much is done: resumed, a study repeats no draw; beside another worker, by the process too."""
    beside = os.getpid() if study.get_trials(states=(TrialState.RUNNING,)) else 0
    seed = int(digest(search.seed, len(settled(study)), beside)[:8], 16)
    return optuna.samplers.TPESampler(n_startup_trials=search.startup, multivariate=True, group=True, seed=seed)


def _recorded(objective: Objective, trial: optuna.Trial) -> float | tuple[float, ...]:
    trial.set_user_attr(WORKER, worker())
    try:
        return objective(trial)
    except (optuna.TrialPruned, *FAILURES) as error:
        trial.set_user_attr(REASON, reason_of(error))
        raise
    finally:
        torch.cuda.empty_cache()  # of a trial that ran out of memory; nothing happens without a GPU


def reason_of(error: BaseException) -> str:
    """The first line of an error, with its kind where the message alone does not tell."""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return first if isinstance(error, InputError | optuna.TrialPruned) else f"{type(error).__name__}: {first}"


def _check_hope(trials: Iterable[FrozenTrial]) -> None:
    done = list(trials)
    if len(done) >= HOPELESS and all(trial.state == TrialState.FAIL for trial in done):
        raise InputError(
            f"all of the first {len(done)} trials failed, the last one so: {done[-1].user_attrs.get(REASON)}"
        )
