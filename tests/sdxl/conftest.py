"""The world `sdxl` on a machine that has downloaded nothing."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from lookahead.config import Checkpoints, read_params
from tests.modules import ROOT


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder and an empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def sdxl() -> Checkpoints:
    return read_params(ROOT / "params.yaml").worlds["sdxl"].checkpoints
