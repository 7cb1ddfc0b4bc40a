"""Tells MLflow about runs, and is the only module that knows it: whatever breaks here is a warning, never a lost model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml
from PIL import Image

from lookahead.artifacts import STATE, digest, digest_paths, read_json
from lookahead.config import Params, Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Names are MLflow's own. A dead server must not hold a stage up for minutes.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
FLUSH_ROWS, FLUSH_SECONDS = 100, 5.0
LONGEST_PARAM = 500  # characters
_STEP = re.compile(r"(\d+)$")


@dataclass(frozen=True)
class Origin:
    """Where an output comes from: stage, world, its sections of the parameters, the paths it reads, its workspace's key."""

    stage: str
    world: str
    settings: Mapping[str, object]
    inputs: tuple[Path, ...]
    key: str


class Recorder(Protocol):
    """Takes a run's curves, and at its end its output."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take one row of the curves."""

    def finish(self, out: Path | None) -> dict[str, Any]:
        """Take the published output, or None after a failure, and return the lineage for `<stage>.run.json`."""


class NoRecorder:
    """Nobody listens: tracking is off, or broken."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Drop the row."""

    def finish(self, out: Path | None) -> dict[str, Any]:
        """There is no lineage."""
        return {"tracked": False}


def open_recorder(params: Params, origin: Origin) -> Recorder:
    """A recorder for one run of a stage; MLflow is imported only where tracking is on."""
    if not params.tracking.enabled:
        return NoRecorder()
    try:
        client, experiment = connect(params.tracking)
        return MlflowRecorder(client, experiment, reproduction(params), origin)
    except Exception as error:  # whatever the store raises: the stage matters more
        _warn("opening the store", error)
        return NoRecorder()


def _warn(what: str, error: Exception) -> None:
    reason = (str(error).strip().splitlines() or [""])[0]
    sys.stderr.write(f"warning: not tracked: {what} failed ({type(error).__name__}: {reason:.200})\n")


def root() -> Path:
    """The repository; DVC names it also in experiments, which run in a copy."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def store_uri(tracking: Tracking) -> str:
    """The store's address, with a relative SQLite path taken from the repository's root."""
    path = tracking.uri.removeprefix("sqlite:///")
    return tracking.uri if path == tracking.uri else f"sqlite:///{root() / path}"


def connect(tracking: Tracking) -> tuple[MlflowClient, str]:
    """Open the store, made first where it is new, and return the client and the experiment's id."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient  # reads its settings at import

    uri, artifacts = store_uri(tracking), None
    if uri.startswith("sqlite:///"):
        Path(uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        artifacts = (root() / STATE / "artifacts").as_uri()
    client = MlflowClient(uri)
    known = client.get_experiment_by_name(tracking.experiment)
    return client, known.experiment_id if known else client.create_experiment(tracking.experiment, artifacts)


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def reproduction(params: Params) -> str:
    """What the stages of one reproduction have in common: the commit and the parameters, tracking aside."""
    return digest(_git("rev-parse", "HEAD"), params.model_dump(mode="json", exclude={"tracking"}))[:16]


def tags_of(origin: Origin) -> dict[str, str]:
    """The run's tags from git and DVC."""
    tags = {
        "mlflow.source.name": f"stages/{origin.stage.split('/')[0]}.py",
        "mlflow.source.git.commit": _git("rev-parse", "HEAD"),
        "mlflow.source.git.branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
        "git.dirty": str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower(),
        "dvc.stage": os.environ.get("DVC_STAGE", ""),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", ""),
        "lookahead.world": origin.world,
        "lookahead.stage": origin.stage,
        "lookahead.key": origin.key,
    }
    return {name: value for name, value in tags.items() if value}


def dvc_digests(lock: Path) -> dict[str, str]:
    """MD5 by path of what DVC's lock file knows."""
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {}) if lock.is_file() else {}
    entries = (entry for stage in stages.values() for kind in ("deps", "outs") for entry in stage.get(kind, []))
    return {entry["path"]: entry["md5"] for entry in entries if "md5" in entry}


def flatten(tree: object, prefix: str = "") -> dict[str, object]:
    """The leaves of nested mappings by dotted name."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    pairs = ((f"{prefix}.{name}" if prefix else str(name), value) for name, value in tree.items())
    return {key: leaf for name, value in pairs for key, leaf in flatten(value, name).items()}


def numbers_of(out: Path) -> dict[str, float]:
    """The numbers of an output's `metrics.json` by dotted name."""
    tree = read_json(out / "metrics.json") if (out / "metrics.json").is_file() else {}
    leaves = flatten(tree).items()
    return {name: float(v) for name, v in leaves if isinstance(v, int | float) and not isinstance(v, bool) and v == v}


def pictures_of(out: Path) -> Iterator[tuple[Path, str, int]]:
    """The output's PNG files, each with the key and step that the UI shows it by."""
    for path in sorted(out.rglob("*.png")):
        number = _STEP.search(path.stem)
        name = path.relative_to(out).with_suffix("").as_posix()
        yield path, _STEP.sub("", name).rstrip("_/ "), int(number[1]) if number else 0


class MlflowRecorder:
    """One MLflow run below the run of its reproduction; after the first failure it only warns."""

    def __init__(self, client: MlflowClient, experiment: str, family: str, origin: Origin) -> None:
        """Start the run, and first that of the reproduction where this stage is its first."""
        self._client, self._origin, self._experiment = client, origin, experiment
        self._rows: list[tuple[Mapping[str, float], int, int]] = []
        self._flushed, self._broken = time.monotonic(), False
        self._started = time.time()
        self._parent = self._find_parent(family)
        self._close_killed()
        tags = tags_of(origin) | {"mlflow.parentRunId": self._parent, "lookahead.reproduction": family}
        self._run = client.create_run(experiment, tags=tags, run_name=f"{origin.world} {origin.stage}").info.run_id
        self._attempt("logging parameters", self._log_origin)

    def _search(self, query: str) -> list[str]:
        return [run.info.run_id for run in self._client.search_runs([self._experiment], query)]

    def _find_parent(self, family: str) -> str:
        found = self._search(f"tags.`lookahead.family` = '{family}'")
        if found:
            return found[0]
        tags = {"lookahead.family": family, "lookahead.world": self._origin.world}
        name = f"{self._origin.world} reproduction {family[:6]}"
        parent: str = self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id
        return parent

    def _close_killed(self) -> None:
        query = f"attributes.status = 'RUNNING' and tags.`lookahead.key` = '{self._origin.key}'"
        for run in self._search(f"{query} and tags.`lookahead.stage` = '{self._origin.stage}'"):
            self._client.set_terminated(run, "KILLED")

    def _log_origin(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, Param

        leaves = {"world": self._origin.world, **flatten(self._origin.settings)}
        self._client.log_batch(self._run, params=[Param(n, str(v)[:LONGEST_PARAM]) for n, v in leaves.items()])
        datasets = [Dataset(name, value, "local", name) for name, value in self.digests().items()]
        self._client.log_inputs(self._run, [DatasetInput(dataset) for dataset in datasets])

    def digests(self) -> dict[str, str]:
        """The inputs' digests, at most 36 characters: DVC's own where it knows the path."""
        known = dvc_digests(Path("dvc.lock"))
        return {str(path): known.get(path.as_posix()) or digest_paths([path])[:32] for path in self._origin.inputs}

    def _attempt(self, what: str, action: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            action()
        except Exception as error:  # whatever the store raises: the stage matters more
            self._broken = True
            _warn(what, error)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take one row of the curves; rows are sent together, because each sending costs as much as a step."""
        self._rows.append((dict(metrics), step, time.time_ns() // 1_000_000))
        if len(self._rows) >= FLUSH_ROWS or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._attempt("logging curves", self._flush)

    def _flush(self) -> None:
        from mlflow.entities import Metric

        rows, self._rows, self._flushed = self._rows, [], time.monotonic()
        metrics = [Metric(n, v, at, step) for row, step, at in rows for n, v in row.items()]
        for start in range(0, len(metrics), 1000):  # the store's largest batch
            self._client.log_batch(self._run, metrics=metrics[start : start + 1000])

    def _log_output(self, out: Path) -> None:
        for run, prefix in ((self._run, ""), (self._parent, f"{self._origin.stage}.")):
            self._rows = [({prefix + n: v for n, v in numbers_of(out).items()}, 0, time.time_ns() // 1_000_000)]
            self._run, kept = run, self._run
            self._flush()
            self._run = kept
        for path, key, step in pictures_of(out):
            with Image.open(path) as picture:
                self._client.log_image(self._run, picture, key=key, step=step, synchronous=True)
        for path in (*out.glob("*.html"), *out.glob("*.json"), *out.glob("*.csv")):
            self._client.log_artifact(self._run, str(path))
