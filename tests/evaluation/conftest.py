"""A tiny world with portraits, a quick protocol, and trained encoders."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lookahead.config import Checkpoints, Evaluate, read_params, with_overrides
from lookahead.models.adapter import ADAPTER_FILE
from tests.tiny import build_portraits, build_tiny_world

PEOPLE = 4
Encoders = Mapping[str, Path]


def layers_of(unet: nn.Module) -> dict[str, type]:
    """Which layers a network has: what was attached to it shows."""
    return {name: type(module) for name, module in unet.named_modules()}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Random weights in every format."""
    return build_tiny_world(tmp_path_factory.mktemp("evaluation_world"))


@pytest.fixture(scope="session")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures of each of five people."""
    return build_portraits(tmp_path_factory.mktemp("portraits"), PEOPLE + 1)


@pytest.fixture(scope="session")
def quick(portraits: Path) -> Evaluate:
    """The miniature's protocol with few people and steps."""
    changes = {
        "splits": {split: str(portraits) for split in ("search", "validation", "test")},
        "people": PEOPLE,
        "photo_prompts": 1,
        "num_inference_steps": 2,
        "batch_size": 10,
        "grid_people": 2,
        "previews": {"people": 2, "timesteps": [100, 900], "scales": [0.0, 1.0]},
        "diversity": {"people": 2, "prompts": 2, "seeds": 2},
        "steering": None,
        "encoders": {},
    }
    return with_overrides(read_params().worlds["miniature"].evaluation(), changes)


@pytest.fixture(scope="session")
def encoders(tiny: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Encoders:
    """The untuned adapter's file as an encoder, and one whose attention weights were moved."""
    folder = tmp_path_factory.mktemp("encoders")
    for name in ("same", "moved"):
        (folder / name).mkdir()
    (source,) = Path(tiny.adapter.source).glob("*.safetensors")
    same = Path(shutil.copy(source, folder / "same" / ADAPTER_FILE))
    generator = torch.Generator().manual_seed(3)
    tensors = {
        k: v + 0.3 * torch.randn(v.shape, generator=generator) * ("_ip" in k) for k, v in load_file(same).items()
    }
    save_file(tensors, folder / "moved" / ADAPTER_FILE)
    return {"noise_only": folder / "same", "tuned": folder / "moved"}
