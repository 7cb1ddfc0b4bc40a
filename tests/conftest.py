"""What all tests share: no network, and a tiny world that is built once."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # also for stages run inside a test, which would set all cores for those after it
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

import shutil
from pathlib import Path

import pytest
import torch

from lookahead.config import Checkpoints
from tests.tiny import build_tiny_world


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny tensors gain nothing from more threads, which on a busy machine wait for each other for seconds."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Tiny checkpoints of every part, shared by all tests: read them only."""
    return build_tiny_world(tmp_path_factory.mktemp("tiny_world"))


@pytest.fixture
def own_world(tiny_world: Checkpoints, tmp_path: Path) -> Checkpoints:
    """A copy of the tiny world that a test may damage."""
    source, copy = str(Path(tiny_world.base).parent), str(tmp_path / "world")
    shutil.copytree(source, copy)
    return Checkpoints.model_validate_json(tiny_world.model_dump_json().replace(source, copy))
