"""Records a run of a stage: parameters, curves, metrics, pictures, and the digests of its inputs."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from lookahead.config import Params
from lookahead.tracking.lineage import (
    Origin,
    dvc_md5,
    flatten,
    input_digests,
    numbers_of,
    pictures_of,
    reproduction,
    tags_of,
)
from lookahead.tracking.store import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient

FLUSH_ROWS, FLUSH_SECONDS = 100, 5.0  # every sending costs as much as a small training step
LARGEST_BATCH = 1000  # metrics; the store takes no more
LONGEST_PARAM = 500  # characters
_FILES = ("*.html", "*.json", "*.csv", "per_image.parquet", "album.parquet")  # the last two: `lookahead compare`


class Recorder(Protocol):
    """Takes a run's curves, and at its end its output."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take one row of the curves."""

    def finish(self, out: Path | None) -> dict[str, Any]:
        """Take the published output, or None after a failure, and return the lineage for `<stage>.run.json`."""


class NoRecorder:
    """Nobody listens: tracking is off, or its store cannot be opened."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Drop the row."""

    def finish(self, out: Path | None) -> dict[str, Any]:
        """There is no lineage."""
        return {"tracked": False}


def _warn(what: str, error: Exception) -> None:
    reason = (str(error).strip().splitlines() or [""])[0]
    sys.stderr.write(f"warning: not tracked from here on: {what} failed ({type(error).__name__}: {reason:.200})\n")


def open_recorder(params: Params, origin: Origin) -> Recorder:
    """A recorder for one run of a stage; MLflow is imported only where tracking is on."""
    if not params.tracking.enabled:
        return NoRecorder()
    try:
        return MlflowRecorder(*connect(params.tracking), reproduction(params), origin)
    except Exception as error:  # whatever the store raises: the stage matters more
        _warn("opening the store", error)
        return NoRecorder()


class MlflowRecorder:
    """One MLflow run below that of its reproduction; after the first failure it warns, and then only tries to close."""

    def __init__(self, client: MlflowClient, experiment: str, family: str, origin: Origin) -> None:
        """Start the run, and before it that of the reproduction if this is its first stage."""
        self._client, self._experiment, self._origin = client, experiment, origin
        self._rows: list[tuple[dict[str, float], int, int]] = []
        self._started = self._flushed = time.time()
        self._broken = False
        self._parent = self._find_parent(family)
        self._close_killed()
        tags = tags_of(origin) | {"mlflow.parentRunId": self._parent, "lookahead.reproduction": family}
        self._run = client.create_run(experiment, tags=tags, run_name=f"{origin.world} {origin.stage}").info.run_id
        self._attempt("logging parameters", self._log_origin)

    def _search(self, query: str) -> list[str]:
        return [run.info.run_id for run in self._client.search_runs([self._experiment], query)]

    def _find_parent(self, family: str) -> str:
        found = self._search(f"tags.`lookahead.family` = '{family}'")
        tags = {"lookahead.family": family, "lookahead.world": self._origin.world}
        name = f"{self._origin.world} reproduction {family[:6]}"
        return found[0] if found else self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id

    def _close_killed(self) -> None:
        """A run killed in this workspace could not say so itself."""
        origin = self._origin
        same = f"tags.`lookahead.key` = '{origin.key}' and tags.`lookahead.stage` = '{origin.stage}'"
        for run in self._search(f"attributes.status = 'RUNNING' and {same}"):
            self._client.set_terminated(run, "KILLED")

    def _log_origin(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, Param

        leaves = flatten({"world": self._origin.world, **self._origin.settings})
        self._client.log_batch(self._run, params=[Param(n, str(v)[:LONGEST_PARAM]) for n, v in leaves.items()])
        datasets = [Dataset(name, value, "local", name) for name, value in input_digests(self._origin).items()]
        self._client.log_inputs(self._run, [DatasetInput(dataset, []) for dataset in datasets])

    def _attempt(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever the store raises: the stage matters more
            if not self._broken:
                _warn(what, error)
            self._broken = True

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Take one row of the curves; rows are sent together."""
        self._rows.append((dict(metrics), step, int(time.time() * 1000)))
        late = len(self._rows) >= FLUSH_ROWS or time.time() - self._flushed > FLUSH_SECONDS
        if late and not self._broken:
            self._attempt("logging curves", self._flush)

    def _flush(self) -> None:
        from mlflow.entities import Metric

        rows, self._rows, self._flushed = self._rows, [], time.time()
        metrics = [Metric(name, value, at, step) for row, step, at in rows for name, value in row.items()]
        for start in range(0, len(metrics), LARGEST_BATCH):
            self._client.log_batch(self._run, metrics=metrics[start : start + LARGEST_BATCH])

    def _log_numbers(self, out: Path) -> None:
        """The output's metrics, on the reproduction's run too, by stage: there one run compares with another."""
        from mlflow.entities import Metric

        now, numbers = int(time.time() * 1000), numbers_of(out)
        for run, prefix in ((self._run, ""), (self._parent, f"{self._origin.stage}.")):
            self._client.log_batch(run, metrics=[Metric(f"{prefix}{n}", v, now, 0) for n, v in numbers.items()])

    def _log_dataset(self, out: Path) -> None:
        """A dataset that the stage has made, under the MD5 by which DVC's lock file will know it."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if (out / "shards").is_dir():
            made = Dataset(self._origin.stage, dvc_md5(out), "local", str(out))
            self._client.log_inputs(self._run, [DatasetInput(made, [InputTag("mlflow.data.context", "output")])])

    def _log_output(self, out: Path | None) -> None:
        self._flush()
        if out is None:
            return
        self._log_numbers(out)
        self._log_dataset(out)
        for path, key, step in pictures_of(out):
            with Image.open(path) as picture:
                self._client.log_image(self._run, picture.convert("RGB"), key=key, step=step, synchronous=True)
        for path in (path for pattern in _FILES for path in sorted(out.glob(pattern))):
            self._client.log_artifact(self._run, str(path))

    def _close(self, status: str) -> None:
        self._client.set_terminated(self._run, status)
        self._client.set_terminated(self._parent, status)

    def finish(self, out: Path | None) -> dict[str, Any]:
        """Send what is left, close the run, and return its lineage."""
        if not self._broken:
            self._attempt("logging the output", lambda: self._log_output(out))
        self._attempt("closing the run", lambda: self._close("FAILED" if out is None else "FINISHED"))
        return {
            "tracked": not self._broken,
            "run": self._run,
            "reproduction": self._parent,
            "started": self._started,
            "seconds": time.time() - self._started,
            "tags": tags_of(self._origin),
        }
