"""An exported encoder through MLflow's registry and server gives the pictures that the pipeline gives."""

import base64
import json
import os
import struct
import subprocess
import sys
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from PIL import Image

from lookahead.errors import InputError
from lookahead.serving import read_base64, register
from tests.launcher import await_answer, free_port

NAME, ALIAS = "lookahead-tiny", "champion"


@pytest.fixture(scope="module")
def store(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a store with the encoder registered in it, twice."""
    folder = tmp_path_factory.mktemp("store")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("tiny", (folder / "artifacts").as_uri())
    assert [register(exported, client, experiment, NAME, ALIAS) for _ in range(2)] == [1, 2]
    return client.tracking_uri


@pytest.fixture(scope="module")
def asked(portraits: list[Path]) -> dict[str, list[str]]:
    """Two rows."""
    encoded = [base64.b64encode(path.read_bytes()).decode() for path in portraits[:2]]
    return {"portrait": encoded, "prompt": ["a photo of a person in the snow", "a comic drawing of a person"]}


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size, and has no pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT")
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), dtype=np.int16)


@pytest.fixture
def model(store):
    mlflow.set_tracking_uri(store)
    return mlflow.pyfunc.load_model(f"models:/{NAME}@{ALIAS}")


def test_the_registered_model_draws_what_the_pipeline_draws(model, pipe, photos, asked):
    drawn = model.predict(pd.DataFrame(asked), params={"seed": 3, "fast": True})
    for answer, photo, prompt in zip(drawn, photos, asked["prompt"], strict=False):
        assert np.array_equal(pixels(read_base64(answer)), pixels(pipe(photo, prompt, seed=3, fast=True)[0]))
    assert model.predict(pd.DataFrame(asked), params={"seed": 4, "fast": True}) != drawn


def test_nothing_in_the_store_is_pickled_and_the_alias_is_the_newest_versions(store):
    files = [path.name for path in Path(store.removeprefix("sqlite:///")).parent.rglob("*") if path.is_file()]
    assert "serving.py" in files and "ip-adapter.safetensors" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".bin"))]
    assert MlflowClient(store).get_model_version_by_alias(NAME, ALIAS).version in (2, "2")


def test_a_folder_that_was_not_exported_is_refused(store, tmp_path):
    with pytest.raises(InputError, match="is no exported encoder"):
        register(tmp_path, MlflowClient(store), "0", NAME, ALIAS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no picture", "no JPEG, PNG or WebP"),
        (png_header(10_000, 10_000), "10000 x 10000 pixels"),
        (png_header(100_000, 100_000), "decompression bomb"),
        (png_header(8, 8), "cannot be read"),
    ],
    ids=["no picture", "too large", "bomb", "truncated"],
)
def test_a_bad_portrait_is_refused_by_the_model_in_one_message(model, content, reason):
    rows = pd.DataFrame({"portrait": [base64.b64encode(content).decode()], "prompt": ["a person"]})
    with pytest.raises(InputError, match=f"`portrait` is no picture file in base64.*{reason}"):
        model.predict(rows)


def post(port: int, body: object) -> dict[str, list[str]]:
    url, kind = f"http://127.0.0.1:{port}/invocations", {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), kind), timeout=300) as answer:
        return json.load(answer)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_mlflow_models_serve_answers_with_a_picture(store, pipe, photos, asked, tmp_path):
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"models:/{NAME}@{ALIAS}"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": store, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            await_answer(f"http://127.0.0.1:{port}/ping", server)
            record = {name: values[0] for name, values in asked.items()}
            (answer,) = post(port, {"dataframe_records": [record], "params": {"seed": 3}})["predictions"]
            bomb = base64.b64encode(png_header(100_000, 100_000)).decode()
            with pytest.raises(urllib.error.HTTPError) as refused:
                post(port, {"dataframe_records": [record | {"portrait": bomb}]})
        finally:
            server.terminate()
            server.wait(60)
    assert np.array_equal(pixels(read_base64(answer)), pixels(pipe(photos[0], asked["prompt"][0], seed=3)[0]))
    assert refused.value.code == 400 and "decompression bomb" in refused.value.read().decode()
