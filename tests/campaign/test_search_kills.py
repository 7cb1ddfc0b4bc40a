"""SIGKILL of a search's workers: as many trials as asked for, none counted twice, none left running."""

import random
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from lookahead.search.objective import first_number
from tests.campaign.children import PATIENCE, Running
from tests.campaign.conftest import FIGURES, TRIALS
from tests.campaign.inputs import read_tree
from tests.project import WORLD, save_tree
from tests.search.conftest import SEARCH
from tests.search.test_command import server  # noqa: F401  (fixture)
from tests.search.test_workers import BEAT, draw, open_tiny

pytestmark = pytest.mark.campaign
GRACE: float = SEARCH["heartbeat"]["grace"] + SEARCH["heartbeat"]["interval"]  # type: ignore[index]
KILLS = {"one": 8, "two": 6, "PostgreSQL": 4}
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
Start = Callable[..., Running]


def trials_of(address: str) -> list[FrozenTrial]:
    """The trials of the one search in a storage."""
    storage = optuna.storages.RDBStorage(address)
    (name,) = [name for name in optuna.get_all_study_names(storage) if "confirm" not in name]
    trials = optuna.load_study(study_name=name, storage=storage).get_trials()
    storage.remove_session()
    storage.engine.dispose()
    return trials


def check_trials(trials: list[FrozenTrial], workers: int) -> None:
    """As many as asked for, at most one fewer than there are workers above it, none twice, none running."""
    ended = [trial for trial in trials if trial.state in ENDED]
    assert TRIALS <= len(ended) <= TRIALS + workers - 1, [(trial.number, trial.state) for trial in trials]
    assert len({first_number(trial) for trial in ended}) == len(ended)
    assert not [trial.number for trial in trials if trial.state == TrialState.RUNNING]


def kill_one(start: Start, workers: int, longest: float, chance: random.Random, real: bool) -> float:
    """Start the workers, kill one of them in the middle, let the others end; when it was killed."""
    running = [start(real=real and not worker) for worker in range(workers)]
    victim = running.pop(0)
    if victim.wait(chance.uniform(0, longest)) is None:
        victim.send(signal.SIGKILL)
    code, moment = victim.wait(PATIENCE), time.monotonic()
    for other in running:
        done = other.finish()
        assert done.code == 0, done.said[-3000:]
    return moment if code == -signal.SIGKILL else -1.0


def small(root: Path) -> Path:
    """The project with the shortest trainings."""
    tree = read_tree(root)
    tree["worlds"][WORLD]["train"] |= {"steps": 2, "num_samples": 1}
    save_tree(root, tree)
    return root


def forget(address: str) -> None:
    """Remove all studies of a shared storage, so that the next search has all to do."""
    for name in optuna.get_all_study_names(address):
        optuna.delete_study(study_name=name, storage=address)


def search_once(start: Start, root: Path) -> float:
    """Run the search to its end; the seconds that it took."""
    begun, done = time.monotonic(), start().finish()
    assert done.code == 0 and "Traceback" not in done.said, done.said[-3000:]
    assert (root / "results" / WORLD / "search" / "report.html").is_file()
    return time.monotonic() - begun


def test_a_killed_workers_trial_ends_also_where_no_trial_is_left_to_do(tmp_path: Path) -> None:
    study = open_tiny(tmp_path)
    trial = study.ask()
    draw(trial)
    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
    assert open_tiny(tmp_path).get_trials()[0].state == TrialState.RUNNING
    time.sleep(BEAT.grace + 1.5)
    trials = open_tiny(tmp_path).get_trials()
    assert [one.state for one in trials] == [TrialState.FAIL, TrialState.WAITING]
    assert first_number(trials[1]) == 0


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("kind", KILLS)
def test_a_search_goes_on_after_a_kill(
    kind: str,
    place: Callable[[], Path],
    log: Path,
    number: int,
    share: Callable[[int], int],
    request: pytest.FixtureRequest,
) -> None:
    chance, workers, count = random.Random(f"{number} {kind}"), 1 if kind == "one" else 2, share(KILLS[kind])
    shared = f"{request.getfixturevalue('server')}/optuna" if kind == "PostgreSQL" else ""
    words = ["search", *(["--storage", shared] if shared else [])]
    longest, hits = search_once(partial(Running, small(place()), words, log), log.with_name("project")), 0
    while hits < count:
        real, root = hits % 2 == 1 and not shared, small(place())
        start = partial(Running, root, words, log)
        if shared:
            forget(shared)
        killed = kill_one(start, workers, longest * (1 + real), chance, real)
        if killed < 0:
            longest *= 0.9  # it was faster than the undisturbed one
            continue
        hits += 1
        FIGURES.update(["kills", f"kills of a search ({kind})", *["kills of real processes"] * real])
        search_once(start, root)
        time.sleep(max(0.0, killed + GRACE - time.monotonic()))
        search_once(start, root)  # nothing is left to do, but to end the killed trial
        check_trials(trials_of(shared or f"sqlite:///{root}/state/search/studies.db"), workers)
