"""A study in MLflow: one run for it, and below that one run for each of its trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from lookahead.artifacts import Log
from lookahead.config import Params
from lookahead.tracking.lineage import Origin, numbers_of, pictures_of, tags_of
from lookahead.tracking.recorder import FLUSH_ROWS, FLUSH_SECONDS, LARGEST_BATCH, LONGEST_PARAM, _warn
from lookahead.tracking.store import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient

ATTEMPTS = 5  # workers that make a new store's tables at the same moment get in each other's way
LONGEST_TAG = 500  # characters


class NoStudyRecorder:
    """Nobody listens: tracking is off, or its store cannot be opened."""

    def begin(self, _kind: str, _slot: int, _told: Mapping[str, object]) -> Log:
        """Its curves are dropped."""
        return lambda *_: None

    def end(self, _kind: str, _slot: int, _told: Mapping[str, object], _folder: Path) -> None:
        """There is no run to close."""

    def finish(self, _out: Path | None) -> dict[str, Any]:
        """There is no lineage."""
        return {"tracked": False}


def open_study_recorder(
    params: Params, world: str, study: str, known: str | None
) -> tuple[NoStudyRecorder | MlflowStudyRecorder, str | None]:
    """A recorder for a study's trials and the id of the study's run, which is `known` if another worker made it."""
    if not params.tracking.enabled:
        return NoStudyRecorder(), known
    for attempt in range(ATTEMPTS):
        try:
            recorder = MlflowStudyRecorder(*connect(params.tracking), world, study, known)
            return recorder, recorder.parent
        except Exception as error:  # whatever the store raises: the study matters more
            failure = error
            time.sleep(0.5 * (1 + attempt))
    _warn("opening the store", failure)
    return NoStudyRecorder(), known


class MlflowStudyRecorder:
    """Children by kind ("trial", "confirm") and slot: a trial that is run again continues its run."""

    def __init__(self, client: MlflowClient, experiment: str, world: str, study: str, known: str | None) -> None:
        """Find or start the study's run."""
        self._client, self._experiment, self._study, self._world = client, experiment, study, world
        self._tags = tags_of(Origin("search", world, {}, (), study)) | {"lookahead.study": study}
        self.parent = known or self._find("study", 0) or self._create(f"{world} search {study[-6:]}", "study", 0, {})
        self._runs: dict[tuple[str, int], str] = {}
        self._curves: dict[str, list[tuple[dict[str, float], int, int]]] = {}
        self._flushed = time.time()
        self._broken = False

    def _find(self, kind: str, slot: int) -> str | None:
        tags = {"lookahead.study": self._study, "lookahead.kind": kind, "lookahead.slot": str(slot)}
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
        found = self._client.search_runs([self._experiment], query, max_results=1)
        return found[0].info.run_id if found else None

    def _create(self, name: str, kind: str, slot: int, more: dict[str, str]) -> str:
        tags = self._tags | {"lookahead.kind": kind, "lookahead.slot": str(slot)} | more
        return self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id

    def _attempt(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # whatever the store raises: the study matters more
            if not self._broken:
                _warn(what, error)
            self._broken = True

    def begin(self, kind: str, slot: int, told: Mapping[str, object]) -> Log:
        """Start the trial's run, or find that of an earlier attempt, and return what takes its curves."""
        self._attempt("starting a trial", lambda: self._begin(kind, slot, told))
        run = self._runs.get((kind, slot))

        def log(row: Mapping[str, float], step: int) -> None:
            if run is not None:
                self._curves[run].append((dict(row), step, int(time.time() * 1000)))
                if len(self._curves[run]) >= FLUSH_ROWS or time.time() - self._flushed > FLUSH_SECONDS:
                    self._attempt("logging curves", lambda: self._flush(run))

        return log

    def _begin(self, kind: str, slot: int, told: Mapping[str, object]) -> None:
        from mlflow.entities import Param, RunTag

        name = f"{self._world} search {kind} {slot}"
        run = self._find(kind, slot) or self._create(name, kind, slot, {"mlflow.parentRunId": self.parent})
        self._runs[kind, slot], self._curves[run] = run, []
        self._client.update_run(run, status="RUNNING")
        tags = {"optuna.study": self._study, "optuna.trial": str(told["number"])}
        params = [Param(name, str(value)[:LONGEST_PARAM]) for name, value in told.items() if name != "number"]
        self._client.log_batch(run, params=params, tags=[RunTag(name, value) for name, value in tags.items()])

    def _flush(self, run: str) -> None:
        from mlflow.entities import Metric

        rows, self._curves[run], self._flushed = self._curves[run], [], time.time()
        metrics = [Metric(name, value, at, step) for row, step, at in rows for name, value in row.items()]
        for start in range(0, len(metrics), LARGEST_BATCH):
            self._client.log_batch(run, metrics=metrics[start : start + LARGEST_BATCH])

    def end(self, kind: str, slot: int, told: Mapping[str, object], folder: Path) -> None:
        """Close the trial's run with its numbers, its words as tags, and its preview grids."""
        if (kind, slot) in self._runs:
            self._attempt("closing a trial", lambda: self._end(self._runs[kind, slot], told, folder))

    def _end(self, run: str, told: Mapping[str, object], folder: Path) -> None:
        from mlflow.entities import Metric, RunTag

        self._flush(run)
        now = int(time.time() * 1000)
        numbers = [Metric(name, value, now, 0) for name, value in told.items() if isinstance(value, float)]
        words = [RunTag(f"trial.{name}", value[:LONGEST_TAG]) for name, value in told.items() if isinstance(value, str)]
        self._client.log_batch(run, metrics=numbers, tags=words)
        self._log_pictures(run, folder)
        self._client.set_terminated(run, "FAILED" if told["state"] == "failed" else "FINISHED")

    def _log_pictures(self, run: str, folder: Path) -> None:
        for path, key, step in pictures_of(folder):
            with Image.open(path) as picture:
                self._client.log_image(run, picture.convert("RGB"), key=key, step=step, synchronous=True)

    def _log_results(self, out: Path) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self.parent, metrics=[Metric(n, v, now, 0) for n, v in numbers_of(out).items()])
        for path in sorted(out.iterdir()):
            self._client.log_artifact(self.parent, str(path))

    def finish(self, out: Path | None) -> dict[str, Any]:
        """Give the study's run the figures and tables, close it, and return the lineage."""
        if out is not None:
            self._attempt("logging the results", lambda: self._log_results(out))
        status = "FAILED" if out is None else "FINISHED"
        self._attempt("closing the study", lambda: self._client.set_terminated(self.parent, status))
        return {"tracked": not self._broken, "run": self.parent, "study": self._study, "tags": self._tags}
