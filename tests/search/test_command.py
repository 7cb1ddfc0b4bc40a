"""`lookahead search` in a project of its own: two workers here, and two that share a real PostgreSQL server."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import optuna
import psycopg
import pytest
import yaml
from mlflow import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from lookahead.artifacts import read_json
from lookahead.config import Checkpoints
from lookahead.search.objective import first_number
from tests.launcher import COMMAND, free_port
from tests.modules import ROOT, SOURCE
from tests.project import WORLD, build_project, save_tree, tree_of
from tests.search.conftest import SEARCH
from tests.tiny import build_portraits
from tests.training.conftest import features  # noqa: F401  (fixture)

pytestmark = pytest.mark.slow
TRIALS, PATIENCE = 8, 600.0  # seconds
USER = "postgres"  # the server refuses to run as root
Build = Callable[..., None]


@pytest.fixture
def build(tiny_world: Checkpoints, features: Path, tmp_path: Path) -> Build:  # noqa: F811
    """Write the project: the tiny world, its features, portraits of both splits, a search, a store of runs."""

    def write(tracking: str, **changes: object) -> None:
        build_project(tmp_path, tiny_world)
        for split in ("search", "validation"):
            build_portraits(tmp_path / "models" / WORLD / "portraits" / split, 2)
        shutil.copytree(features, tmp_path / "runs" / WORLD / "features")
        tree: dict[str, Any] = tree_of(tiny_world)
        tree["worlds"][WORLD]["train"] |= {"steps": 2, "sample_every": 2}
        tree["studies"]["search"] = {"defaults": yaml.safe_load(yaml.safe_dump(SEARCH)), "worlds": {WORLD: changes}}
        tree["tracking"] = {"enabled": True, "uri": tracking, "experiment": "lookahead"}
        save_tree(tmp_path, tree)

    return write


def start(root: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start `lookahead search` in a project, as a worker of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{SOURCE}{os.pathsep}{ROOT}"}
    environment.pop("DVC_ROOT", None)
    log = (root / "worker.log").open("ab")
    return subprocess.Popen([COMMAND, "search", *words], cwd=root, env=environment, stdout=log, stderr=log)


def test_a_search_of_two_workers_is_published_and_its_trials_are_runs(build: Build, tmp_path: Path) -> None:
    build("sqlite:///state/mlflow.db", trials=2, workers=2)
    for _ in range(2):
        assert start(tmp_path).wait() == 0, (tmp_path / "worker.log").read_text()[-3000:]
    out = tmp_path / "results" / WORLD / "search"
    assert (out / "report.html").is_file() and not list((tmp_path / "state" / "work").rglob("*.csv"))
    assert read_json(tmp_path / "runs" / WORLD / "search.run.json")["tracked"] is True
    assert "run" not in read_json(out / "metrics.json")
    client = MlflowClient(f"sqlite:///{tmp_path}/state/mlflow.db")
    experiment = client.get_experiment_by_name("lookahead")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["lookahead.kind"] == "study"]
    trials = {run.data.tags["lookahead.trial"]: run for run in runs if run.data.tags["lookahead.kind"] == "trial"}
    assert {"trial-000", "trial-001", "confirm-0-11"} <= set(trials) and len(trials) == len(runs) - 1
    for run in trials.values():
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id and run.info.status == "FINISHED"
        assert {"identity", "prompt", "loss_noise"} <= set(run.data.metrics)
        assert any(path.path.endswith(".png") for path in client.list_artifacts(run.info.run_id, "images"))
        assert len(client.get_metric_history(run.info.run_id, "loss_noise")) == 2
    first = trials["trial-000"].data
    assert first.params["density"] == "cosine" and first.tags["optuna.trial"] == "0"
    assert "report.html" in {path.path for path in client.list_artifacts(parent.info.run_id)}


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
    found = shutil.which("initdb")  # or where Debian's package has it
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("no PostgreSQL server is installed: apt-get install postgresql")
    folder, port = Path(f"/tmp/lookahead_postgres_{os.getpid()}"), free_port()  # its sockets' paths may not be long
    folder.mkdir()
    run = {"cwd": "/", "check": True, "stdout": subprocess.DEVNULL} | as_somebody(folder)
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    control = [str(folders[-1] / "pg_ctl"), "-D", str(folder / "data"), "-l", str(folder / "log"), "-w"]
    try:
        subprocess.run([folders[-1] / "initdb", "-D", folder / "data", "-U", "tester", "-A", "trust"], **run)  # type: ignore[call-overload]
        subprocess.run([*control, "-o", options, "start"], **run)  # type: ignore[call-overload]
        with psycopg.connect(f"postgresql://tester@127.0.0.1:{port}/postgres", autocommit=True) as connection:
            for name in ("optuna", "mlflow"):
                connection.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
        yield f"postgresql+psycopg://tester@127.0.0.1:{port}"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **(run | {"check": False}))  # type: ignore[call-overload]
        shutil.rmtree(folder, ignore_errors=True)


@cache
def storage_of(address: str) -> optuna.storages.RDBStorage:
    """One storage for all looks: each keeps connections open, and the server has 100."""
    return optuna.storages.RDBStorage(address)


def trials_of(address: str) -> list[FrozenTrial]:
    """The trials of the search."""
    (name,) = [name for name in optuna.get_all_study_names(storage_of(address)) if "confirm" not in name]
    return optuna.load_study(study_name=name, storage=storage_of(address)).get_trials()


@pytest.mark.parametrize("shared", [False, True], ids=["SQLite", "PostgreSQL"])
def test_a_killed_workers_trial_is_finished_by_the_other(
    build: Build, tmp_path: Path, shared: bool, request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue("server") if shared else ""
    build(f"{server}/mlflow" if shared else "sqlite:///state/mlflow.db", trials=TRIALS)
    storage = f"{server}/optuna" if shared else f"sqlite:///{tmp_path}/state/search/studies.db"
    workers = [start(tmp_path, *(["--storage", storage] if shared else [])) for _ in range(2)]
    end, states, log = time.monotonic() + PATIENCE, Counter[TrialState](), tmp_path / "worker.log"
    try:
        while states[TrialState.COMPLETE] < 2 or states[TrialState.RUNNING] < 2:
            assert time.monotonic() < end and not any(w.poll() for w in workers), log.read_text()[-3000:]
            time.sleep(0.1)
            if "new study" in log.read_text():  # its tables are created
                states = Counter(trial.state for trial in trials_of(storage))
        workers[0].send_signal(signal.SIGKILL)
        assert workers[1].wait(PATIENCE) == 0, log.read_text()[-3000:]
    finally:
        for worker in workers:
            worker.kill()
    trials = trials_of(storage)
    (lost,) = [trial for trial in trials if trial.state != TrialState.COMPLETE]
    (again,) = [trial for trial in trials if first_number(trial) == lost.number and trial is not lost]
    assert lost.state == TrialState.FAIL and again.params.items() >= lost.params.items()
    assert TRIALS <= len(trials) - 1 <= TRIALS + 1
