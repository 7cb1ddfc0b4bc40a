"""Two workers on a real PostgreSQL server, one of them killed in the middle of a trial."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import optuna
import psycopg
import pytest
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from lookahead.search.objective import first_number
from tests.search.project import build_search, start
from tests.training.conftest import features  # noqa: F401  (fixture)

TRIALS, PATIENCE = 8, 600.0  # seconds
USER = "postgres"  # the server refuses to run as root


def programs() -> Path | None:
    """Where the server's programs lie: on the path, or where Debian's package puts them."""
    found = shutil.which("initdb")
    places = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return places[-1] if places else None


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
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
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


@cache
def storage_of(address: str) -> optuna.storages.RDBStorage:
    """One storage for all looks: each keeps connections open, and the server has 100."""
    return optuna.storages.RDBStorage(f"{address}/optuna")


def trials_of(address: str) -> list[FrozenTrial]:
    """The trials of the search, once a worker has created its study."""
    try:
        names = optuna.get_all_study_names(storage_of(address))
    except SQLAlchemyError:  # a worker creates the tables at this moment
        return []
    found = [name for name in names if "confirm" not in name]
    return optuna.load_study(study_name=found[0], storage=storage_of(address)).get_trials() if found else []


@pytest.mark.slow
def test_a_killed_workers_trial_is_finished_by_the_other(server, tiny_world, features, tmp_path) -> None:  # noqa: F811
    root = build_search(tmp_path, tiny_world, features, f"{server}/mlflow", trials=TRIALS)
    workers = [start(root, "--storage", f"{server}/optuna") for _ in range(2)]
    end, states = time.monotonic() + PATIENCE, Counter[TrialState]()
    try:
        while states[TrialState.COMPLETE] < 2 or states[TrialState.RUNNING] < 2:
            assert time.monotonic() < end and not any(w.poll() for w in workers), (root / "worker.log").read_text()
            time.sleep(0.1)
            states = Counter(trial.state for trial in trials_of(server))
        workers[0].send_signal(signal.SIGKILL)
        assert workers[1].wait(PATIENCE) == 0, (root / "worker.log").read_text()[-3000:]
    finally:
        for worker in workers:
            worker.kill()
    trials = trials_of(server)
    (lost,) = [trial for trial in trials if trial.state != TrialState.COMPLETE]
    (again,) = [trial for trial in trials if first_number(trial) == lost.number and trial is not lost]
    assert lost.state == TrialState.FAIL and again.params.items() >= lost.params.items()
    assert TRIALS <= len(trials) - 1 <= TRIALS + 1
