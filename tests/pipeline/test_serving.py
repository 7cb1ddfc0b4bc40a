"""An exported encoder through MLflow's registry and server gives the pictures that the pipeline gives."""

import base64
import json
import os
import shutil
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
from typer.testing import CliRunner

from lookahead import cli
from lookahead.artifacts import write_json
from lookahead.config import read_params
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.serving import read_base64, register
from lookahead.tracking import Origin, connect, open_recorder
from tests.launcher import await_answer, free_port
from tests.report.test_comparison import build

NAME, ALIAS = "lookahead-tiny", "champion"


@pytest.fixture(scope="module")
def store(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a store with the encoder registered in it, twice."""
    folder = tmp_path_factory.mktemp("store")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.create_experiment("tiny", (folder / "artifacts").as_uri())
    assert [register(exported, client, experiment, NAME, None) for _ in range(2)] == [1, 2]
    client.set_registered_model_alias(NAME, ALIAS, "2")
    return client.tracking_uri


def test_only_an_encoder_that_is_better_becomes_the_champion(
    exported: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the interval of its evaluation; versions carry figures, data sets and the reproduction they come from."""
    runs = here / "runs" / "miniature"
    shutil.copytree(exported, runs / "train" / "lookahead" / "encoder")

    def evaluated(shift: float) -> None:
        where = Origin("evaluate", "miniature", {}, (here / "params.yaml",), f"k{shift}")
        out = build(runs / "evaluate", shift)
        write_json(out / "metrics.json", {"identity": 0.5 + shift})
        (out / "headline.md").write_text(f"| lookahead | {0.5 + shift} |")
        write_json(runs / "evaluate.run.json", open_recorder(read_params(), where).finish(out))

    def said(*words: str) -> str:
        done = CliRunner().invoke(cli.app, ["register", str(exported), *words])
        assert done.exit_code == 0, done.exception
        return done.output

    evaluated(0.0)
    assert "version 1 is champion" in said()
    assert "version 1 stays champion" in said()  # equal to it
    evaluated(0.2)
    output = said()
    assert "version 3 is champion" in output and "version 3 against version 1" in output and "higher" in output
    evaluated(0.0)
    assert "version 3 stays champion" in said()
    (runs / "train" / "lookahead" / "encoder" / ADAPTER_FILE).write_bytes(b"another")
    output = said()
    assert "version 5 has no evaluation" in output and "version 3 stays champion" in output
    assert "version 6 is mine" in said("--alias", "mine")
    client, _ = connect(read_params().tracking)
    third = client.get_model_version("lookahead-miniature", "3")
    run = client.get_run(third.run_id)
    assert "0.7" in third.description and run.data.metrics["identity"] == 0.7
    (model,) = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{third.run_id}'")
    assert [(metric.key, metric.value) for metric in model.metrics] == [("identity", 0.7)]
    reproduction = client.get_run(run.data.tags["mlflow.parentRunId"])
    assert reproduction.data.tags["lookahead.kind"] == "reproduction"


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
