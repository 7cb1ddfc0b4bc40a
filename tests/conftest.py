"""What all tests share: no network, and a tiny world that is built once."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # also for stages run inside a test, which would set all cores for those after it
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import shutil
from pathlib import Path

import pytest
import torch
import yaml

from lookahead.config import Checkpoints, Generate
from tests.modules import ROOT
from tests.tiny import ENCODING, TREE, build_tiny_world, no_log


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors gain nothing from more threads, which on a busy machine wait for each other for seconds."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Tiny checkpoints of every part, shared by all tests: read them only."""
    return build_tiny_world(tmp_path_factory.mktemp("tiny_world"))


@pytest.fixture(scope="session")
def tiny_sd15(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """The same with a Stable Diffusion 1.5 as base, which predicts noise: read them only."""
    return build_tiny_world(tmp_path_factory.mktemp("tiny_sd15"), "epsilon", xl=False)


@pytest.fixture
def own_world(tiny_world: Checkpoints, tmp_path: Path) -> Checkpoints:
    """A copy of the tiny world that a test may damage."""
    source, copy = str(Path(tiny_world.base).parent), str(tmp_path / "world")
    shutil.copytree(source, copy)
    return Checkpoints.model_validate_json(tiny_world.model_dump_json().replace(source, copy))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variables of the caller, nor of an earlier test: MLflow sets its own, which a test's processes would obey."""
    for name in ("DVC_ROOT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the committed parameters, made the current one."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompts file of 12 people, 3 styles and 2 scenes."""
    path = tmp_path_factory.mktemp("prompts") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TREE, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def settings(prompts_file: Path) -> Generate:
    """Three people with three photos and two stylised pictures each, in shards of six."""
    counts = {"people": 3, "photos": 3, "stylised": 2, "batch_size": 4, "shard_size": 6, "min_images": 2}
    accepted = {"min_photo_similarity": -1.0, "min_stylised_similarity": -1.0}
    licences = {"tiny world": "Apache-2.0"}
    return Generate(**counts, **accepted, max_second_face=0.25, seed=0, prompts=str(prompts_file), licences=licences)


@pytest.fixture(scope="session")
def dataset(tiny_world: Checkpoints, settings: Generate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of `generate`."""
    from lookahead.dataset.drawing import synthesise  # here: few tests need it

    work = tmp_path_factory.mktemp("generate")
    synthesise(tiny_world, settings, work, no_log)
    return work


@pytest.fixture(scope="session")
def features(tiny_world: Checkpoints, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of `features`."""
    from lookahead.features.encode import encode

    work = tmp_path_factory.mktemp("features")
    encode(tiny_world, ENCODING, dataset, None, work, no_log)
    return work
