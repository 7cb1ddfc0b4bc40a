"""A small dataset and its features, made once from the tiny world."""

from pathlib import Path

import pytest
import yaml

from lookahead.config import Checkpoints, Features, Generate
from lookahead.dataset.synthesis import synthesise
from lookahead.features.encode import encode

TREE = {
    "template": "{style} of {subject} {scene}",
    "nobody": "a person",
    "plain": "photo",
    "styles": {"photo": "a photo", "pencil": "a pencil drawing", "oil": "an oil painting"},
    "scenes": {"studio": "in a studio", "snow": "in the snow"},
    "people": {
        "template": "{first} {last}",
        "parts": {"first": ["anna", "bela", "cora", "dina"], "last": ["abel", "berg", "cole"]},
        "lattice": None,
    },
}


def no_log(_metrics: object, _step: int) -> None:
    """Log nothing."""


@pytest.fixture(scope="session")
def prompts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prompts file of 12 people, 3 styles and 2 scenes."""
    path = tmp_path_factory.mktemp("prompts") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TREE, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def settings(prompts_file: Path) -> Generate:
    """Three people with three photos and two stylised pictures each, in shards of six."""
    return Generate(
        people=3,
        photos=3,
        stylised=2,
        batch=4,
        shard=6,
        seed=0,
        prompts=str(prompts_file),
        keep_photo=-1.0,
        keep_stylised=-1.0,
        keep_images=2,
        second_face=0.25,
        evaluation_likeness=1.0,
        licences={"tiny world": "Apache-2.0"},
    )


@pytest.fixture(scope="session")
def dataset(tiny_world: Checkpoints, settings: Generate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of `generate`."""
    work = tmp_path_factory.mktemp("generate")
    synthesise(tiny_world, settings, (), work, no_log)
    return work


@pytest.fixture(scope="session")
def features(tiny_world: Checkpoints, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of `features`."""
    work = tmp_path_factory.mktemp("features")
    encode(tiny_world, Features(batch=4), dataset, None, work, no_log)
    return work
