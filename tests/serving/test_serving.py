"""An exported encoder through MLflow's registry and server gives the pictures that the pipeline gives."""

import base64
import json
import os
import socket
import struct
import subprocess
import sys
import time
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
from lookahead.pipeline import LookaheadPipeline
from lookahead.serving.drawer import read_base64, write_base64
from lookahead.serving.register import register
from tests.serving.conftest import ALIAS, NAME

Asked = dict[str, list[str]]


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size, and has no pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT")
    packed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB"), dtype=np.int16)


def test_the_registered_model_draws_what_the_pipeline_draws(
    store: str, pipe: LookaheadPipeline, photos: list[Image.Image], asked: Asked
) -> None:
    mlflow.set_tracking_uri(store)
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@{ALIAS}")
    drawn = model.predict(pd.DataFrame(asked), params={"seed": 3, "fast": True})
    for answer, photo, prompt in zip(drawn, photos, asked["prompt"], strict=False):
        assert np.array_equal(pixels(read_base64(answer)), pixels(pipe(photo, prompt, seed=3, fast=True)[0]))
    other = model.predict(pd.DataFrame(asked), params={"seed": 4, "fast": True})
    assert other != drawn


def test_nothing_in_the_store_is_pickled(store: str) -> None:
    files = [path.name for path in Path(store.removeprefix("sqlite:///")).parent.rglob("*") if path.is_file()]
    assert "drawer.py" in files and "ip-adapter.safetensors" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".bin"))]


def test_the_alias_is_the_newest_versions(store: str) -> None:
    assert MlflowClient(store).get_model_version_by_alias(NAME, ALIAS).version in (2, "2")


def test_a_folder_that_was_not_exported_is_refused(store: str, tmp_path: Path) -> None:
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
def test_a_bad_portrait_is_refused_by_the_model_in_one_message(store: str, content: bytes, reason: str) -> None:
    mlflow.set_tracking_uri(store)
    model = mlflow.pyfunc.load_model(f"models:/{NAME}@{ALIAS}")
    rows = pd.DataFrame({"portrait": [base64.b64encode(content).decode()], "prompt": ["a person"]})
    with pytest.raises(InputError, match=f"`portrait` is no picture file in base64.*{reason}"):
        model.predict(rows)


def test_pictures_survive_the_way() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(read_base64(write_base64(Image.fromarray(noise)))), noise)


def post(port: int, body: object) -> dict[str, list[str]]:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        told: dict[str, list[str]] = json.load(answer)
        return told


def await_server(port: int, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 400
    while time.monotonic() < end:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=10):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError("the server does not answer")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_mlflow_models_serve_answers_with_a_picture(
    store: str, pipe: LookaheadPipeline, photos: list[Image.Image], asked: Asked, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", f"models:/{NAME}@{ALIAS}"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": store, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            await_server(port, server)
            (answer,) = post(port, {"dataframe_records": [{n: v[0] for n, v in asked.items()}], "params": {"seed": 3}})[
                "predictions"
            ]
            bomb = base64.b64encode(png_header(100_000, 100_000)).decode()
            with pytest.raises(urllib.error.HTTPError) as refused:
                post(port, {"dataframe_records": [{"portrait": bomb, "prompt": "a person"}]})
        finally:
            server.terminate()
            server.wait(60)
    assert np.array_equal(pixels(read_base64(answer)), pixels(pipe(photos[0], asked["prompt"][0], seed=3)[0]))
    assert refused.value.code == 400 and "decompression bomb" in refused.value.read().decode()
