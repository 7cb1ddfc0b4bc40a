"""A tiny world with portraits, and a quick protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from lookahead.config import Checkpoints, Evaluate, read_evaluate, read_params, with_overrides
from tests.tiny import build_portraits, build_tiny_world

PEOPLE = 4


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
        "steps": 2,
        "batch": 10,
        "bootstrap": 200,
        "grid_people": 2,
        "previews": {"people": 2, "timesteps": [100, 900], "scales": [0.0, 1.0]},
        "diversity": {"people": 2, "prompts": 2, "seeds": 2},
        "steering": None,
    }
    return with_overrides(read_evaluate(read_params().worlds["miniature"].evaluate), changes)
