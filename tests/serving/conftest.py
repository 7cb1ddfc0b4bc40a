"""The tiny world of the pipeline's tests, and an encoder exported from it."""

import base64
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lookahead.pipeline import LookaheadPipeline
from lookahead.pipeline.pipeline import export
from lookahead.serving.register import register
from tests.pipeline.conftest import encoder, photos, pipe, portraits, settings, world  # noqa: F401  (fixtures)

NAME, ALIAS = "lookahead-tiny", "champion"


@pytest.fixture(scope="module")
def exported(pipe: LookaheadPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("exported")
    export(pipe, folder, None)
    return folder


@pytest.fixture(scope="module")
def store(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a store with the encoder registered in it, twice."""
    folder = tmp_path_factory.mktemp("store")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("tiny", (folder / "artifacts").as_uri())
    assert [register(exported, client, experiment, NAME, ALIAS) for _ in range(2)] == [1, 2]
    return client.tracking_uri


@pytest.fixture(scope="module")
def asked(portraits: list[Path]) -> dict[str, list[str]]:  # noqa: F811
    """Two rows."""
    told = [base64.b64encode(path.read_bytes()).decode() for path in portraits[:2]]
    return {"portrait": told, "prompt": ["a photo of a person in the snow", "a comic drawing of a person"]}
