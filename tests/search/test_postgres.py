"""Two workers on a real PostgreSQL server, one of them killed in the middle of a trial."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import optuna
import psycopg
import pytest
from lookahead.search.study import SLOT, WORKER
from mlflow import MlflowClient
from optuna.trial import TrialState

from lookahead.config import Checkpoints
from tests.search.project import build_search, start
from tests.training.conftest import features  # noqa: F401  (fixture)

TRIALS, PATIENCE = 8, 600.0  # seconds
USER = "postgres"  # the server refuses to run as root


def programs() -> Path | None:
    """Where the server's programs lie: on the path, or where Debian's package puts them."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return places[-1] if places else None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def as_somebody(folder: Path) -> dict[str, object]:
    """How to start the server: as an unprivileged user where the tests run as root."""
    if os.getuid():
        return {}
    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        pytest.skip(f"tests run as root and there is no user {USER}: install Debian's package postgresql")
    os.chown(folder, entry.pw_uid, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server of this test's own, on 127.0.0.1, with the databases `optuna` and `mlflow`."""
    place = programs()
    if place is None:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    folder = Path(f"/tmp/lookahead_postgres_{os.getpid()}")  # short: its sockets' paths may not be long
    folder.mkdir()
    run = {"cwd": "/", "check": True, "stdout": subprocess.DEVNULL} | as_somebody(folder)
    port = free_port()
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    control = [str(place / "pg_ctl"), "-D", str(folder / "data"), "-l", str(folder / "log"), "-w"]
    address = f"postgresql+psycopg://tester@127.0.0.1:{port}"
    try:
        subprocess.run([place / "initdb", "-D", folder / "data", "-U", "tester", "-A", "trust"], **run)  # type: ignore[call-overload]
        subprocess.run([*control, "-o", options, "start"], **run)  # type: ignore[call-overload]
        with psycopg.connect(f"postgresql://tester@127.0.0.1:{port}/postgres", autocommit=True) as connection:
            for name in ("optuna", "mlflow"):
                connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        yield address
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **(run | {"check": False}))  # type: ignore[call-overload]
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(ready: Callable[[], bool], workers: list[subprocess.Popen[bytes]], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < end, log.read_text()[-3000:]
        assert not any(worker.poll() for worker in workers), log.read_text()[-3000:]
        time.sleep(0.1)


@cache
def storage_of(address: str) -> optuna.storages.RDBStorage:
    """One storage for all looks: each keeps connections open, and the server has 100."""
    return optuna.storages.RDBStorage(f"{address}/optuna")


def trials_of(address: str) -> list[optuna.trial.FrozenTrial]:
    """The trials of the search, once a worker has made its study."""
    storage = storage_of(address)
    names = [s.study_name for s in optuna.get_all_study_summaries(storage) if "confirm" not in s.study_name]
    return optuna.load_study(study_name=names[0], storage=storage).get_trials() if names else []


def held_by(address: str, worker: subprocess.Popen[bytes]) -> list[int]:
    """The slots that a worker is running, its first two trials past."""
    trials = trials_of(address)
    if sum(trial.state == TrialState.COMPLETE for trial in trials) < 2:
        return []
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    return [t.user_attrs[SLOT] for t in running if t.user_attrs.get(WORKER, "- 0 -").split()[-2] == str(worker.pid)]


@pytest.mark.slow
def test_a_killed_workers_trial_is_finished_by_the_other(
    server: str,
    tiny_world: Checkpoints,
    features: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    root = build_search(tmp_path, tiny_world, features, f"{server}/mlflow", trials=TRIALS)
    workers = [start(root, "--storage", f"{server}/optuna") for _ in range(2)]
    lost: list[int] = []
    try:
        storage_of(server)  # makes the tables, beside the workers
        wait_until(lambda: bool(lost.extend(held_by(server, workers[0])) or lost), workers, root / "worker.log")
        workers[0].send_signal(signal.SIGKILL)
        assert workers[0].wait() == -signal.SIGKILL
        assert workers[1].wait(PATIENCE) == 0, (root / "worker.log").read_text()[-3000:]
    finally:
        for worker in workers:
            worker.kill()
    trials = trials_of(server)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert sorted(trial.user_attrs[SLOT] for trial in complete) == list(range(TRIALS))
    others = [trial for trial in trials if trial.state != TrialState.COMPLETE]
    assert [(trial.state, trial.user_attrs[SLOT]) for trial in others] == [(TrialState.FAIL, lost[0])]
    again = next(trial for trial in complete if trial.user_attrs[SLOT] == lost[0])
    assert again.params.items() >= others[0].params.items()
    check_runs(f"{server}/mlflow")


def check_runs(store: str) -> None:
    """One run for the study, and exactly one child for each trial, all of them closed."""
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("lookahead")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["lookahead.kind"] == "study"]
    children = [run for run in runs if run.data.tags["lookahead.kind"] == "trial"]
    assert sorted(int(run.data.tags["lookahead.slot"]) for run in children) == list(range(TRIALS))
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in runs} == {"FINISHED"}
