"""Puts an exported encoder into MLflow's model registry, as code and files."""

from __future__ import annotations

from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from lookahead.errors import InputError
from lookahead.pipeline.pipeline import SETTINGS_FILE

_CODE = Path(__file__).with_name("drawer.py")
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string", "portrait"), ColSpec("string", "prompt")]),
    outputs=Schema([ColSpec("string")]),
    params=ParamSchema([ParamSpec("seed", "long", 0), ParamSpec("fast", "boolean", False)]),
)


def register(folder: Path, client: MlflowClient, experiment: str, name: str, alias: str) -> int:
    """Register an exported folder as the model's newest version, move the alias to it, and return the version.

    Raises:
        InputError: the folder was not exported.
    """
    if not (folder / SETTINGS_FILE).is_file():
        raise InputError(f"{folder} is no exported encoder: `lookahead export {folder}` writes one")
    mlflow.set_tracking_uri(client.tracking_uri)
    with mlflow.start_run(experiment_id=experiment, run_name=f"register {name}"):
        logged = mlflow.pyfunc.log_model(
            name="encoder",
            python_model=str(_CODE),
            artifacts={"encoder": str(folder)},
            signature=SIGNATURE,
            pip_requirements=[],  # served by the environment that this package is installed in
            registered_model_name=name,
        )
    version = int(logged.registered_model_version)
    client.set_registered_model_alias(name, alias, str(version))
    return version
