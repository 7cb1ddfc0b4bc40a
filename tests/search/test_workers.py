"""Workers that share a study: interrupted, taken for dead, and two that find the same dead trial."""

import threading
import time
from pathlib import Path

import optuna
import pytest
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from lookahead.config import Heartbeat
from lookahead.errors import InputError
from lookahead.search.objective import REASON, first_number
from lookahead.search.run import open_storage, open_study, optimize

BEAT = Heartbeat(interval=1, grace=2, retries=3)
DONE = (TrialState.COMPLETE,)


def open_tiny(folder: Path) -> optuna.Study:
    storage = open_storage(None, folder / "studies.db", BEAT)
    study = open_study(storage, folder / "studies.db", "tiny", {"space": "a"}, ["x"], {"x": 1.5})
    study.sampler = optuna.samplers.RandomSampler()
    return study


def slow(trial: optuna.Trial) -> float:
    x = trial.suggest_float("x", 0.0, 9.0)
    time.sleep(1.0)
    return x


def draw(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0.0, 9.0)


def test_two_workers_that_find_the_same_dead_trial_both_go_on(tmp_path: Path) -> None:
    study = open_tiny(tmp_path)
    trial = study.ask()
    draw(trial)
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    time.sleep(BEAT.grace + 1.5)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            optimize(open_tiny(tmp_path), slow, 3, MaxTrialsCallback(3, DONE))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = open_tiny(tmp_path).get_trials()
    again = [trial for trial in trials if trial.number and first_number(trial) == 0]
    assert not failures and trials[0].state == TrialState.FAIL
    assert [trial.state for trial in again] == [TrialState.COMPLETE] and again[0].params == {"x": 1.5}


def test_a_worker_that_was_taken_for_dead_goes_on(tmp_path: Path) -> None:
    study, other = open_tiny(tmp_path), open_tiny(tmp_path)
    assert [trial.system_attrs["fixed_params"] for trial in study.get_trials()] == [{"x": 1.5}]  # queued once

    def lost(trial: optuna.Trial) -> float:
        if trial.number == 0:
            other.tell(0, state=TrialState.FAIL)
        trial.set_user_attr("seen", True)
        return draw(trial)

    optimize(study, lost, 3, MaxTrialsCallback(2, DONE))
    assert [trial.state for trial in study.get_trials()] == [TrialState.FAIL, *DONE, *DONE]


def test_an_interrupted_trial_is_queued_again_with_its_values(tmp_path: Path) -> None:
    study = open_tiny(tmp_path)

    def interrupted(trial: optuna.Trial) -> float:
        draw(trial)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimize(study, interrupted, 3, MaxTrialsCallback(1, DONE))
    optimize(open_tiny(tmp_path), draw, 3, MaxTrialsCallback(1, DONE))
    assert [(trial.state, trial.params["x"]) for trial in study.get_trials()] == [
        (TrialState.FAIL, 1.5),
        (TrialState.COMPLETE, 1.5),
    ]
    assert first_number(study.get_trials()[1]) == 0


def test_failures_keep_their_reason_and_only_failures_alone_end_a_study(tmp_path: Path) -> None:
    study = open_tiny(tmp_path)

    def failing(trial: optuna.Trial) -> float:
        if trial.number:
            raise RuntimeError("out of memory\nand more")
        return draw(trial)

    optimize(study, failing, 3, MaxTrialsCallback(4, states=(TrialState.FAIL,)))
    reasons = [trial.user_attrs.get(REASON) for trial in study.get_trials()]
    assert reasons == [None, *["RuntimeError: out of memory"] * 4]

    def hopeless(trial: optuna.Trial) -> float:
        raise InputError("no loss is finite")

    with pytest.raises(InputError, match="all of the first 3 trials failed, the last one so: InputError: no loss"):
        optimize(open_tiny(tmp_path / "other"), hopeless, 3)
