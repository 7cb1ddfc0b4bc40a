"""Studies: an SQLite file, or PostgreSQL for several machines; a heartbeat shows that the workers of a study live."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import torch
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from lookahead.artifacts import STATE, digest
from lookahead.config import Heartbeat
from lookahead.errors import InputError

STUDIES = STATE / "search" / "studies.db"
FAILURES = (InputError, MemoryError, RuntimeError)  # torch's "out of memory" is a RuntimeError
HOPELESS = 3  # failed trials without any other: something else than the settings is wrong
REASON = "reason"  # the attribute of a trial that failed or was pruned
Objective = Callable[[optuna.Trial], float | tuple[float, ...]]


def open_storage(address: str | None, file: Path, heartbeat: Heartbeat) -> RDBStorage:
    """The storage at an address, or the SQLite file; one process of a machine at a time creates its tables."""
    if address is not None and not address.startswith("postgresql+psycopg://"):
        raise InputError(f"--storage is {address!r}: several machines share postgresql+psycopg://user@host/database")
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
        raise InputError(f"the storage {where} cannot be opened ({reason:.200}): is the server running?") from None


def open_study(
    storage: RDBStorage, file: Path, kind: str, inputs: Mapping[str, str], first: Mapping[str, Any], **options: Any
) -> tuple[optuna.Study, str]:
    """The study whose name holds a digest of its inputs, and, where it is new, what differs from the last of its kind.

    `first` are the parameters of its first trial, if any; `options` those of `optuna.create_study`.
    """
    name, news = f"{kind}-{digest(inputs)[:6]}", ""
    with FileLock(file.with_suffix(".lock")):
        known = [s for s in optuna.get_all_study_summaries(storage) if s.study_name.rpartition("-")[0] == kind]
        study = optuna.create_study(study_name=name, storage=storage, load_if_exists=True, **options)
        if name not in (summary.study_name for summary in known):
            study.set_user_attr("inputs", dict(inputs))
            news = f"new study {name}"
            if known:
                before = known[-1].user_attrs.get("inputs", {})
                changed = ", ".join(part for part in inputs if before.get(part) != inputs[part])
                news += f": other {changed} than {known[-1].study_name}, which is kept"
        if first:
            study.enqueue_trial(dict(first), skip_if_exists=True)
    return study, news


def retry(retries: int) -> RetryHeartbeatStaleTrialCallback:
    """What queues a trial again whose worker has stopped, with what its checks have reported."""
    return RetryHeartbeatStaleTrialCallback(retries, inherit_intermediate_values=True)


def first_number(trial: FrozenTrial) -> int:
    """The number of a trial, that of its first attempt where it is run again."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """The trials with scores."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def optimize(study: optuna.Study, objective: Objective, retries: int, *stop: Callable[..., None]) -> None:
    """`study.optimize` that goes on after failures, keeps their reasons, and queues an interrupted trial again."""

    def recorded(trial: optuna.Trial) -> float | tuple[float, ...]:
        try:
            return objective(trial)
        except (optuna.TrialPruned, *FAILURES) as error:
            trial.set_user_attr(REASON, reason_of(error))
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


def reason_of(error: BaseException) -> str:
    """The first line of an error, with its kind where the message alone does not tell."""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return first if isinstance(error, InputError | optuna.TrialPruned) else f"{type(error).__name__}: {first}"


def _stop_if_hopeless(study: optuna.Study, _trial: FrozenTrial) -> None:
    trials = study.get_trials(deepcopy=False)
    reasons = [trial.user_attrs[REASON] for trial in trials if REASON in trial.user_attrs]
    useful = any(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    if len(reasons) >= HOPELESS and not useful:
        raise InputError(f"all of the first {len(reasons)} trials failed, the last one so: {reasons[-1]}")


def dashboard_command(storage: str | None, port: int) -> list[str]:
    """The command that serves the studies on 127.0.0.1."""
    if storage is None and not STUDIES.is_file():
        raise InputError(f"{STUDIES} does not exist: run `make search` first, or name a shared --storage")
    program = str(Path(sys.executable).with_name("optuna-dashboard"))
    return [program, storage or f"sqlite:///{STUDIES}", "--host", "127.0.0.1", "--port", str(port)]
