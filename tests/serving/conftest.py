"""The tiny world of the pipeline's tests, and an encoder exported from it."""

import base64
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lookahead.serving.register import register
from tests.pipeline.conftest import encoder, exported, photos, pipe, portraits, settings, world  # noqa: F401  (fixtures)

NAME, ALIAS = "lookahead-tiny", "champion"


@pytest.fixture(scope="module")
def store(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> str:  # noqa: F811
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
