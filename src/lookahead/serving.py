"""The encoder behind MLflow's model registry and server: for programs that ask for pictures over HTTP.

MLflow stores this file as the code of the registered model, so nothing is pickled. A request's rows have `portrait`, a
picture file in base64, and `prompt`; the answer is a PNG in base64 for each row.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc.model import PythonModel
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
from PIL import Image

from lookahead.artifacts import read_json
from lookahead.errors import InputError
from lookahead.mlflow_pages import TABLE
from lookahead.pipeline import LookaheadPipeline
from lookahead.pipeline.personalize import FaceCheck
from lookahead.pipeline.pipeline import SETTINGS_FILE
from lookahead.portraits import open_picture

FILES = ("protocol.json", "per_image.parquet", "album.parquet")  # of an evaluation, which `lookahead compare` reads
LONGEST = 70_000_000  # characters of a portrait in base64: about 50 MB
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string", "portrait"), ColSpec("string", "prompt")]),
    outputs=Schema([ColSpec("string")]),
    params=ParamSchema([ParamSpec("seed", "long", 0), ParamSpec("fast", "boolean", False)]),
)


def read_base64(data: str) -> Image.Image:
    """The picture in a base64 text, upright."""
    if len(data) > LONGEST:
        raise InputError(f"`portrait` has {len(data)} characters, {LONGEST} may be sent: make the picture smaller")
    try:
        return open_picture(base64.b64decode(data, validate=True))
    except (ValueError, InputError) as error:
        raise InputError(f"`portrait` is no picture file in base64 that can be used ({error!s:.150})") from None


def write_base64(picture: Image.Image) -> str:
    """A picture as PNG in base64."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


class Drawer(PythonModel):
    """Draws the person of each row's portrait by its prompt."""

    def load_context(self, context) -> None:  # type: ignore[no-untyped-def]
        """Open the exported folder; its checkpoints are relative to the folder that the server is started in."""
        self._pipe = LookaheadPipeline.from_pretrained(context.artifacts["encoder"])
        self._check = FaceCheck(self._pipe.checkpoints, self._pipe.settings.min_face_size)

    def predict(self, context, model_input, params=None) -> list[str]:  # type: ignore[no-untyped-def]
        """A PNG in base64 for each row; `params` are `seed` and `fast` (few steps, with the LCM-LoRA)."""
        rows = zip(model_input["portrait"], model_input["prompt"], strict=True)
        return [self._draw(portrait, prompt, **params or {}) for portrait, prompt in rows]

    def _draw(self, portrait: str, prompt: str, seed: int = 0, fast: bool = False) -> str:
        square = self._check(read_base64(portrait), "the portrait")
        return write_base64(self._pipe(square, prompt, seed=int(seed), fast=bool(fast))[0])


def register(folder: Path, client: MlflowClient, experiment: str, name: str, evaluation: Path | None) -> int:
    """Register an exported folder as the model's newest version, and return the version.

    With the output of its evaluation it carries the figures, the files that `lookahead compare` reads, and the data
    sets and the reproduction that it comes from.
    """
    if not (folder / SETTINGS_FILE).is_file():
        raise InputError(f"{folder} is no exported encoder: `lookahead export {folder}` writes one")
    mlflow.set_tracking_uri(client.tracking_uri)
    origin = None if evaluation is None else _reproduction(client, evaluation)
    parent = None if origin is None else origin.info.run_id
    with mlflow.start_run(experiment_id=experiment, run_name=f"register {name}", parent_run_id=parent) as run:
        logged = mlflow.pyfunc.log_model(
            name="encoder",
            python_model=__file__,
            artifacts={"encoder": str(folder)},
            signature=SIGNATURE,
            pip_requirements=[],  # served by the environment that this package is installed in
            registered_model_name=name,
        )
        if evaluation is not None:
            mlflow.log_metrics(read_json(evaluation / "metrics.json"), model_id=logged.model_id)
            for file in (*FILES, TABLE):
                mlflow.log_artifact(str(evaluation / file))
    version = str(logged.registered_model_version)
    if evaluation is not None:
        client.update_model_version(name, version, (evaluation / TABLE).read_text(encoding="utf-8"))
    if origin is not None and origin.inputs is not None:
        client.log_inputs(run.info.run_id, origin.inputs.dataset_inputs)
    return int(version)


def _reproduction(client: MlflowClient, evaluation: Path) -> Run | None:
    """The run of the reproduction that an evaluation belongs to, if this store has it."""
    lineage = evaluation.with_name(f"{evaluation.name}.run.json")
    try:
        child = client.get_run(read_json(lineage)["run"])
        return client.get_run(child.data.tags["mlflow.parentRunId"])
    except (MlflowException, InputError, KeyError):
        return None


mlflow.models.set_model(Drawer())
