"""Opens the store that runs are written to."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lookahead.artifacts import STATE
from lookahead.config import Tracking

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow's own names. Nothing goes out to the network, and a dead server holds a stage up for seconds, not minutes.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
_SQLITE = "sqlite:///"


def root() -> Path:
    """The repository; DVC names it also in experiments that run in a copy."""
    return Path(os.environ.get("DVC_ROOT", ".")).resolve()


def store_uri(tracking: Tracking) -> str:
    """The store's address, a relative SQLite path taken from the repository's root."""
    if not tracking.uri.startswith(_SQLITE):
        return tracking.uri
    return f"{_SQLITE}{root() / tracking.uri.removeprefix(_SQLITE)}"


def artifact_root() -> Path:
    """The folder of pictures and reports of a local store; absolute, because MLflow starts in many folders."""
    return root() / STATE / "artifacts"


def environment() -> dict[str, str]:
    """The environment that MLflow gets: ours, with the settings above where they are not set."""
    return SETTINGS | dict(os.environ)


def server_command(tracking: Tracking, port: int) -> tuple[list[str], dict[str, str]]:
    """The command of MLflow's server on this machine's own address, and its environment."""
    connect(tracking)  # makes a new store's tables first: the server's workers would all try at once
    store = ["--backend-store-uri", store_uri(tracking), "--default-artifact-root", artifact_root().as_uri()]
    place = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    return [sys.executable, "-m", "mlflow", "server", *store, *place], environment()


def connect(tracking: Tracking) -> tuple[MlflowClient, str]:
    """Open the store, made first where it is new, and return the client and the experiment's id."""
    os.environ.update(environment())
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)  # forty lines for a new store
    from mlflow import MlflowClient  # here: it reads its settings when it is imported

    uri, artifacts = store_uri(tracking), None
    if uri.startswith(_SQLITE):
        Path(uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    if not uri.startswith("http"):  # a server has a place of its own
        artifacts = artifact_root().as_uri()
    client = MlflowClient(uri)
    known = client.get_experiment_by_name(tracking.experiment)
    return client, known.experiment_id if known else client.create_experiment(tracking.experiment, artifacts)
