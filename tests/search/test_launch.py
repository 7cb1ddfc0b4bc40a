"""A trial whose training is a launch of its own: the same scores, a reason where it fails, no process left."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
import psutil
import pytest

from lookahead.config import Checkpoints, Search, Train, World, read_evaluate
from lookahead.errors import InputError
from lookahead.search.inputs import inputs_of
from lookahead.search.launch import reason_in
from lookahead.search.trial import tune
from lookahead.training.checkpoint import checkpoints as checkpoints_in
from lookahead.training.fit import resume_folder
from lookahead.training.launched import Order
from tests.launcher import LAUNCHER
from tests.search.conftest import make_search
from tests.search.test_run import trials
from tests.training.conftest import changed

Run = Callable[..., object]
WORKER = """
import sys
import torch
from pathlib import Path
from lookahead.search.trial import tune
from lookahead.training.launched import Order

torch.set_num_threads(1)
order = Order.model_validate_json(sys.argv[1])
places = Path(order.features), Path(order.work)
tune(order.checkpoints, order.settings, *places, lambda _row, _step: None, None, sys.argv[2:])
"""


def scores(folder: Path) -> dict[str, list[float]]:
    """What every trial of a search, and of its confirmation, scored person by person."""
    found = [trial for name in sorted(trials(folder)) for trial in trials(folder)[name]]
    return {
        f"{number}.{name}": trial.user_attrs[name]
        for number, trial in enumerate(found)
        for name in ("identity", "prompt")
    }


def trainers(work: Path) -> list[psutil.Process]:
    """The processes, of a launch or the launcher itself, that train into a folder."""
    order = str(work.with_name("launched.json"))
    return [process for process in psutil.process_iter(["cmdline"]) if order in (process.info["cmdline"] or [])]


def await_that(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether something comes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_trials_of_two_processes_score_as_those_of_none(tmp_path: Path, run: Run, world: World) -> None:
    train = changed(world.train, {"accumulate": 2})
    trained, _ = run(tmp_path / "alone", make_search(trials=1), train)
    shared, _ = run(tmp_path / "launched", make_search(trials=1, launch=LAUNCHER), train)
    for row, other in zip(trained.rows, shared.rows, strict=True):
        figures = row.keys() - {"images_per_second"}
        assert {name: other[name] for name in figures} == pytest.approx({name: row[name] for name in figures}, abs=1e-5)
    alone, launched = scores(tmp_path / "alone"), scores(tmp_path / "launched")
    # Weights differ by rounding, 1e-5; pictures are kept in 8 bits, and one level of one pixel moves a score by 1e-4.
    assert len(alone) == 4 and all(launched[name] == pytest.approx(alone[name], abs=1e-3) for name in alone)
    assert alone["0.identity"] != pytest.approx(alone["1.identity"], abs=1e-3)  # the comparison can fail


@pytest.mark.slow
def test_a_launched_training_logs_its_curves_and_is_checked_on_the_way(
    tiny_world: Checkpoints, settings: Train, features: Path, tmp_path: Path
) -> None:
    kept = changed(settings, {"checkpoints_kept": 3})
    told: dict[str, list[tuple[int, float]]] = {"alone": [], "launched": []}
    for name, launch in (("alone", []), ("launched", [sys.executable])):
        seen: list[tuple[int, int]] = []

        def log(row: Mapping[str, float], step: int, name: str = name) -> None:
            told[name].append((step, row["loss_noise"]))

        def check(encoder: Path, step: int, seen: list[tuple[int, int]] = seen) -> None:
            seen.append((step, len(list(encoder.iterdir()))))

        tune(tiny_world, kept, features, tmp_path / name / "training", log, check, launch)
        assert seen == [(2, 1), (4, 1)]
    assert [step for step, _ in told["alone"]] == [1, 2, 3, 4, 5, 6]
    assert told["launched"] == [(step, pytest.approx(loss, rel=1e-4)) for step, loss in told["alone"]]


def test_a_launch_that_fails_is_a_failed_trial_with_its_reason(tmp_path: Path, run: Run) -> None:
    launch = ["bash", "-c", "echo 'error: no GPU is free' >&2; exit 3"]
    with pytest.raises(InputError, match="all of the first 3 trials failed, the last one so: no GPU is free"):
        run(tmp_path, make_search(trials=4, launch=launch))
    (found,) = trials(tmp_path).values()
    failed = [trial for trial in found if trial.state == optuna.trial.TrialState.FAIL]
    assert [trial.user_attrs["reason"] for trial in failed] == ["no GPU is free"] * 3


@pytest.mark.slow
def test_a_training_that_breaks_down_tells_why(
    tiny_world: Checkpoints, settings: Train, features: Path, tmp_path: Path
) -> None:
    mad = changed(settings, {"learning_rate": 1e38, "warmup": 0})
    with pytest.raises(InputError, match="training broke down"):
        tune(tiny_world, mad, features, tmp_path / "training", lambda _row, _step: None, None, LAUNCHER)
    with pytest.raises(InputError, match=r"train\.accumulate is 3, .* make it a multiple of 2"):
        odd = changed(settings, {"accumulate": 3})
        tune(tiny_world, odd, features, tmp_path / "odd" / "training", lambda _row, _step: None, None, LAUNCHER)


def test_a_command_that_does_not_exist_is_named(
    tiny_world: Checkpoints, settings: Train, features: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="`launch` begins with 'acclerate'"):
        tune(tiny_world, settings, features, tmp_path / "training", lambda _row, _step: None, None, ["acclerate"])


@pytest.mark.slow
def test_a_pruned_trial_ends_all_its_processes(
    tiny_world: Checkpoints, settings: Train, features: Path, tmp_path: Path
) -> None:
    long, work = changed(settings, {"steps": 1000, "checkpoints_kept": 1000}), tmp_path / "training"
    alive: list[int] = []

    def check(_encoder: Path, _step: int) -> None:
        alive.append(len(trainers(work)))
        raise optuna.TrialPruned("below the median")

    with pytest.raises(optuna.TrialPruned):
        tune(tiny_world, long, features, work, lambda _row, _step: None, check, LAUNCHER)
    assert alive == [3] and trainers(work) == []  # the launcher and two processes


@pytest.mark.slow
def test_the_launch_of_a_killed_worker_ends_and_its_trial_resumes(
    tiny_world: Checkpoints, settings: Train, features: Path, tmp_path: Path
) -> None:
    long, work = changed(settings, {"steps": 60, "checkpoint_every": 2, "sample_every": 60}), tmp_path / "training"
    order = Order(
        checkpoints=tiny_world, settings=long, features=str(features), work=str(work), threads=1, lock="", host=""
    )
    command = [sys.executable, "-c", WORKER, order.model_dump_json(), *LAUNCHER]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as worker:
        try:
            assert await_that(lambda: bool(checkpoints_in(resume_folder(work))), 300)
            assert len(trainers(work)) == 3
        finally:
            worker.kill()
    assert await_that(lambda: not trainers(work), 30)
    done = [int(path.stem[-6:]) for path in checkpoints_in(resume_folder(work))]
    assert 0 < done[-1] < 60
    tune(tiny_world, long, features, work, lambda _row, _step: None, None, [])
    assert len((work / "curves.csv").read_text().splitlines()) == 61


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("3%|# | 1/40\r9%|# | 4/40\nerror: training broke down at step 5\n  more\nTraceback\n====\n", "training broke"),
        ("error: the disk is full\nerror: another process of this launch ended (reset); its own", "the disk is full"),
        ("error: another process of this launch ended (reset); its own", "another process of this launch ended"),
        ("start\n  Signal 9 (SIGKILL) received by PID 7\n=====\n\n", "exit code 1: Signal 9"),
        ("", "exit code 1: it said nothing"),
    ],
)
def test_the_reason_of_a_failure_is_found_in_what_was_said(said: str, reason: str) -> None:
    assert reason in reason_in(said, 1)
    assert "another" in reason or "another" not in reason_in(said, 1)


def test_how_trials_are_launched_makes_no_other_study(world: World, features: Path) -> None:
    searches: list[Search] = [make_search(), make_search(launch=LAUNCHER), make_search(seed=4)]
    named = [inputs_of(world, read_evaluate(world.evaluate), search, features) for search in searches]
    assert named[0] == named[1] != named[2]
