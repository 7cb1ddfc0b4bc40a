"""Runs in MLflow; with `serving` its only importer. What fails here is a warning, never a lost model."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock
from PIL import Image

from lookahead.artifacts import STATE, digest, digest_paths, read_json
from lookahead.config import Params, Tracking
from lookahead.errors import InputError
from lookahead.mlflow_pages import HEADLINE_TAG, LONGEST, TABLE, describe, differing, flatten, introduce

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow's own names: no network but to the store, a dead server delays a stage by seconds, curves are sent in batches.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_ASYNC_LOGGING_BUFFERING_SECONDS": "5",
    "MLFLOW_ASYNC_LOGGING_THREADPOOL_SIZE": "1",
}
FILES = ("*.html", "*.json", "*.csv", "*.md", "*.yaml", "*.parquet")  # of an output, kept as artifacts
PATIENCE = 30.0  # seconds after which a row of curves has arrived, or the store is broken
_SQLITE = "sqlite:///"
_PATHS = (  # of a store's tables, the columns with paths of artifacts
    *(("experiments", "artifact_location"), ("runs", "artifact_uri"), ("logged_models", "artifact_location")),
    ("model_versions", "storage_location"),
)
_LOGS = {"alembic": "WARNING", "mlflow.store.db.utils": "WARNING", "mlflow.utils.async_logging": "CRITICAL"}
_FORBIDDEN = re.compile(r"[^\w .:/-]", re.ASCII)  # characters that MLflow refuses in the name of a metric
_STEP = re.compile(r"[_-]?(\d+)$")


@dataclass(frozen=True)
class Origin:
    """A run of a stage: its world, its sections of the parameters, the paths it reads, its workspace's key."""

    stage: str
    world: str
    settings: Mapping[str, object]
    inputs: tuple[Path, ...]
    key: str


def state() -> Path:
    """The repository's folder of stores; DVC names the repository also in experiments that run in a copy."""
    return Path(os.environ.get("DVC_ROOT", "."), STATE).resolve()


def store_uri(tracking: Tracking) -> str:
    """The store's address, a relative SQLite path resolved from the repository's root.

    MLflow's own variable MLFLOW_TRACKING_URI, where it is set, goes before the parameter.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or tracking.uri
    return f"{_SQLITE}{state().parent / uri.removeprefix(_SQLITE)}" if uri.startswith(_SQLITE) else uri


def _mlflow() -> Any:
    """MLflow's fluent calls; imported here, because that takes seconds, and with the settings that it reads then."""
    os.environ.update(SETTINGS | dict(os.environ))
    os.environ.pop("MLFLOW_RUN_ID", None)  # which would take the place of every run that is started
    for name, level in _LOGS.items():
        logging.getLogger(name).setLevel(level)
    import mlflow

    return mlflow


def _lock() -> FileLock:
    state().mkdir(parents=True, exist_ok=True)
    return FileLock(state() / "mlflow.lock")


def _follow(uri: str, before: str) -> None:
    """Let a store that was moved or copied with its folder name the artifacts beside it, whose paths are absolute."""
    file, place = Path(uri.removeprefix(_SQLITE)), (state() / "artifacts").as_uri()
    if file.parent != state() or before == place or not before.endswith("/state/artifacts"):
        return  # another program's store, or one that has not moved
    with closing(sqlite3.connect(file, timeout=60)) as database, database:
        for table, column in _PATHS:
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (before, place))


def connect(tracking: Tracking) -> tuple[MlflowClient, str]:
    """Open the store, created first where it is new, for the fluent calls; its client and the experiment's id."""
    uri, mlflow, given = store_uri(tracking), _mlflow(), os.environ.get("MLFLOW_TRACKING_URI", "")
    mlflow.set_tracking_uri(uri)
    os.environ["MLFLOW_TRACKING_URI"] = given  # which MLflow has set: the next call would take it for the user's
    try:
        with _lock():  # MLflow fails where several processes create a store's tables
            client = mlflow.MlflowClient(uri)
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or tracking.experiment
            known = client.get_experiment_by_name(name)
            _follow(uri, known.artifact_location if known else "")
            artifacts = None if uri.startswith("http") else (state() / "artifacts").as_uri()  # a server has its own
            experiment = known.experiment_id if known else client.create_experiment(name, artifacts)
            if known is None or HEADLINE_TAG not in known.tags:
                introduce(client, experiment)
        mlflow.set_experiment(experiment_id=experiment)
    except Exception as error:  # MLflow's, SQLAlchemy's and the operating system's have no class in common
        where = re.sub(r"//([^:/]*):[^@/]*@", r"//\1:***@", uri)
        fault = f"the runs in {where} cannot be opened ({_reason(error):.200})"
        raise InputError(f"{fault}: check `tracking` in params.yaml, or move a damaged file away") from None
    return client, experiment


def server_command(tracking: Tracking, port: int) -> tuple[list[str], dict[str, str]]:
    """The command of MLflow's server on 127.0.0.1, and its environment."""
    connect(tracking)  # creates a new store's tables: the server's workers would all try at once
    store = ["--backend-store-uri", store_uri(tracking), "--default-artifact-root", (state() / "artifacts").as_uri()]
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *store, *address], SETTINGS | dict(os.environ)


def fetch_files(tracking: Tracking, run: str, names: Iterable[str], folder: Path) -> None:
    """Copy the artifacts of these names, of one run, into a folder."""
    if not tracking.enabled:
        raise InputError(f"{run} is no folder, and tracking is off, so it names no run: give a folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        for name in names:
            connect(tracking)[0].download_artifacts(run, name, str(folder))
    except Exception as error:  # MLflow's, the store's and the operating system's have no class in common
        fault = f"{run} is no folder, nor a run of {store_uri(tracking)} with {name} ({_reason(error):.120})"
        raise InputError(f"{fault}: name a run of the stage `evaluate`") from None


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def git(*arguments: str) -> str:
    """What git prints; nothing outside a repository or before the first commit."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def tags_of(origin: Origin) -> dict[str, str]:
    """The run's tags from git and DVC; MLflow's pages show those that begin with "mlflow."."""
    changed = git("status", "--porcelain", "--untracked-files=no", ".", ":!*dvc.lock", ":!params.yaml")
    tags = {
        "mlflow.source.name": f"stages/{origin.stage.split('/')[0]}.py",
        "mlflow.source.git.commit": git("rev-parse", "HEAD"),
        "git.dirty": str(bool(changed)).lower(),
        "dvc.stage": os.environ.get("DVC_STAGE", ""),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", ""),
        **{f"lookahead.{name}": getattr(origin, name) for name in ("world", "stage", "key")},
    }
    return {name: value for name, value in tags.items() if value}


def input_digests(paths: Iterable[Path]) -> dict[str, str]:
    """Digests of inputs: the MD5 in dvc.lock, or else of the contents; MLflow takes 36 characters."""
    lock = Path("dvc.lock")
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {}) if lock.is_file() else {}
    entries = [entry for stage in stages.values() for kind in ("deps", "outs") for entry in stage.get(kind, [])]
    known = {entry["path"]: entry.get("md5") for entry in entries}
    return {path.as_posix(): known.get(path.as_posix()) or digest_paths([path])[:32] for path in paths}


def _log_inputs(paths: Iterable[Path]) -> None:
    """Log paths as data sets of the active run."""
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource as Source  # type: ignore[attr-defined]

    for path, md5 in input_digests(path for path in paths if path.exists()).items():
        _mlflow().log_input(MetaDataset(Source(path), path, md5))  # type: ignore[abstract]


def _find(tags: Mapping[str, str], status: str = "") -> list[str]:
    terms = [f"tags.`{tag}` = '{value}'" for tag, value in tags.items()]
    query = " and ".join(terms + [f"attributes.status = '{status}'"] * bool(status))
    return [run.info.run_id for run in _mlflow().search_runs(filter_string=query, output_format="list")]


def _start(name: str, identity: Mapping[str, str], tags: Mapping[str, str], parent: str | None = None) -> str:
    """Start the run with these tags, or continue it; processes that ask for the same one share it."""
    mlflow = _mlflow()
    while parent is None and mlflow.active_run():  # of a stage of this process that could not end it
        mlflow.end_run("KILLED")
    with _lock():
        run = next(iter(_find(identity)), None)
        new = {} if run else {"run_name": name, "parent_run_id": parent}
        return str(mlflow.start_run(run, nested=True, tags={**tags, **identity}, **new).info.run_id)


def open_recorder(params: Params, origin: Origin) -> Recorder:
    """The recorder of a stage's run, within the run of its reproduction: of one commit and one set of parameters."""

    def start() -> tuple[str, str]:
        client, _ = connect(params.tracking)
        family = digest(git("rev-parse", "HEAD"), params.model_dump(mode="json", exclude={"tracking"}))[:16]
        tags = tags_of(origin)
        shared = {name: value for name, value in tags.items() if not name.startswith(("lookahead.", "dvc.stage"))}
        own = {"lookahead.family": family, "lookahead.world": origin.world, "lookahead.kind": "reproduction"}
        name = f"{origin.world} {tags.get('dvc.experiment') or family[:6]}"
        parent = _start(name, own, shared | {"mlflow.source.name": "dvc.yaml"})
        mlflow = _mlflow()
        mlflow.log_params(differing(params, origin.world))
        if origin.stage == "evaluate":
            people = [path for path in origin.inputs if "portraits" in path.parts]
            _log_inputs([Path("runs", origin.world, "generate"), Path("runs", origin.world, "features"), *people])
        same = {name: value for name, value in tags.items() if name.startswith("lookahead.")}
        for killed in _find(same, "RUNNING"):  # for this process holds the lock of their workspace
            client.set_terminated(killed, "KILLED")
        run = mlflow.start_run(run_name=f"{origin.world} {origin.stage}", nested=True, tags=tags)
        return parent, run.info.run_id

    return Recorder(start, origin, params.tracking.enabled)


def open_study(params: Params, origin: Origin) -> Recorder:
    """The recorder of a study, whose name is `origin.key`: its workers share one run, each trial is a `child` of it."""

    def start() -> tuple[str]:
        connect(params.tracking)
        own = {"lookahead.study": origin.key, "lookahead.kind": "study"}
        return (_start(f"{origin.world} {origin.stage} {origin.key[-6:]}", own, tags_of(origin)),)

    return Recorder(start, origin, params.tracking.enabled)


class Recorder:
    """The run of a stage, a study or a trial; after the first failure it warns, and drops what follows."""

    def __init__(self, start: Callable[[], tuple[str, ...]], origin: Origin, enabled: bool) -> None:
        """Start runs by a function that returns their ids, its own last."""
        self._origin, self._begun, self._failed = origin, time.time(), not enabled
        self._sent: deque[tuple[float, Any]] = deque()
        self._curves: set[str] = set()  # a curve gets no further point, which would lie at step 0
        self._runs: tuple[str, ...] = self._try("opening the store", start) or ()
        self._try("logging parameters", self._log_origin)

    def _try(self, what: str, action: Callable[[], Any], always: bool = False) -> Any:
        try:
            return action() if always or not self._failed else None
        except Exception as error:  # whatever the store raises: the stage matters more
            if not self._failed:
                reason = f"{type(error).__name__}: {_reason(error):.200}"
                sys.stderr.write(f"warning: not tracked from here on: {what} failed ({reason})\n")
            self._failed = True

    def _log_origin(self) -> None:
        leaves = flatten({"world": self._origin.world, **self._origin.settings})
        _mlflow().log_params({name: str(value)[:LONGEST] for name, value in leaves.items()})
        _log_inputs(self._origin.inputs)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take one row of the curves; MLflow sends rows together."""

        def send() -> None:
            sent = _mlflow().log_metrics(dict(metrics), step, synchronous=False, run_id=self._runs[-1])
            self._sent.append((time.time(), sent))
            self._curves.update(metrics)
            self._wait_for_rows_before(time.time() - PATIENCE)

        self._try("logging curves", send)

    def _wait_for_rows_before(self, end: float) -> None:
        while self._sent and self._sent[0][0] <= end:
            self._sent.popleft()[1].wait()  # raises what went wrong

    def child(self, name: str, settings: Mapping[str, object], tags: Mapping[str, str]) -> Recorder:
        """The recorder of a study's trial; the run of an earlier attempt at it is continued."""
        origin = replace(self._origin, settings=settings, inputs=())
        own = {"lookahead.study": origin.key, "lookahead.kind": "trial", "lookahead.trial": name}
        start = partial(_start, f"{origin.world} {origin.stage} {name}", own, tags_of(origin) | dict(tags))
        return Recorder(lambda: (start(self._runs[-1]),), origin, not self._failed)

    def finish(self, out: Path | None, metrics: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Log the output (None after a failure) and end the run; the lineage for `<stage>.run.json`."""
        self._try("logging the output", partial(self._log_output, out, metrics or {}))
        for _ in self._runs:
            end = partial(_mlflow().end_run, "FAILED" if out is None else "FINISHED")
            self._try("ending the run", end, always=True)  # also one that lacks something
        if not self._runs:
            return {"tracked": False}
        times = {"started": self._begun, "seconds": time.time() - self._begun}
        return {"tracked": not self._failed, "run": self._runs[-1], "tags": tags_of(self._origin), **times}

    def _log_output(self, out: Path | None, metrics: Mapping[str, float]) -> None:
        mlflow = _mlflow()
        if self._sent:
            mlflow.flush_async_logging()
        self._wait_for_rows_before(time.time())
        leaves: dict[str, object] = dict(metrics)
        if out is not None and (out / "metrics.json").is_file():
            leaves |= flatten(read_json(out / "metrics.json"))
        numbers = {_FORBIDDEN.sub("", n): float(value) for n, value in leaves.items() if isinstance(value, int | float)}
        mlflow.log_metrics({name: value for name, value in numbers.items() if name not in self._curves})
        if out is None:
            return
        for parent in self._runs[:-1]:
            if (out / TABLE).is_file():  # of the stage `evaluate`
                mlflow.log_metrics(numbers, run_id=parent)
                describe(mlflow.MlflowClient(), parent, self._runs[-1], out)
        for path in sorted(out.rglob("*.png")):
            step, key = _STEP.search(path.stem), _STEP.sub("", path.relative_to(out).with_suffix("").as_posix())
            picture = Image.open(path).convert("RGB")
            mlflow.log_image(picture, key=key, step=int(step[1]) if step else 0, synchronous=True)
        for path in (path for pattern in FILES for path in sorted(out.glob(pattern))):
            mlflow.log_artifact(str(path))
