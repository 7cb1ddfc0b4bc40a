"""A search of the tiny world: two steps a trial, two people, a space with a conditional parameter."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from lookahead.config import Checkpoints, Evaluate, PreviewCurves, Search, Train, World, read_params, with_overrides
from lookahead.search.objective import Task
from lookahead.search.run import run_search
from tests.modules import ROOT
from tests.tiny import build_portraits
from tests.training.conftest import changed, features, settings  # noqa: F401  (fixtures)

FLOAT = {"kind": "float", "log": False, "when": {}}
CHOICE = {"kind": "categorical", "when": {}}
SPACE = {
    "low": FLOAT | {"path": "lookahead.lora_scale.low", "low": 0.0, "high": 0.5},
    "high": FLOAT | {"path": "lookahead.lora_scale.high", "low": 0.5, "high": 1.0},
    "density": CHOICE | {"path": "noise_density.kind", "choices": ["uniform", "cosine", "power"]},
    "power": FLOAT | {"path": "noise_density.strength", "low": 0.0, "high": 3.0, "when": {"density": ["power"]}},
    "redraw": FLOAT | {"path": "lookahead.lora_scale.redraw_every", "kind": "int", "low": 1, "high": 9, "log": True},
}
SEARCH = {
    "mode": "pareto",
    "trials": 3,
    "workers": 1,
    "startup": 2,
    "seed": 3,
    "steps": 2,
    "split": "search",
    "people": 2,
    "photo_prompts": 1,
    "num_inference_steps": 2,
    "prompt_loss": 0.02,
    "checks": {"every": 1, "people": 2},
    "confirm": {"settings": 1, "seeds": [11], "split": "validation", "people": 2},
    "heartbeat": {"interval": 1, "grace": 4, "retries": 3},
    "contours": [["low", "high"], ["power", "redraw"]],
    "space": SPACE,
}


def make_search(**changes: object) -> Search:
    """The search with some values changed."""
    return Search.model_validate(SEARCH | changes)


@pytest.fixture(scope="session")
def world(tiny_world: Checkpoints, settings: Train) -> World:  # noqa: F811
    """The tiny world's checkpoints with short trainings."""
    read = read_params(ROOT / "params.yaml").worlds["miniature"]
    small = {"batch_size": 16, "previews": PreviewCurves(people=1, timesteps=[500], scales=[1.0])}
    train = changed(settings, {"steps": 2, "gradient_accumulation_steps": 1, "num_samples": 1})
    evaluate = read.evaluate.model_copy(update=small)
    return read.model_copy(update={"name": "tiny", "checkpoints": tiny_world, "train": train, "evaluate": evaluate})


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Callable[[World], Evaluate]:
    """A world's evaluation on two people of each split."""
    portraits = tmp_path_factory.mktemp("portraits")
    splits = {split: str(portraits / split) for split in ("search", "validation", "test")}
    for split in ("search", "validation"):
        build_portraits(portraits / split, 2)
    own = {"splits": splits, "people": 2, "photo_prompts": 1, "num_inference_steps": 2}
    protocol = with_overrides(read_params(ROOT / "params.yaml").worlds["miniature"].evaluation(), own)
    return lambda world: protocol.model_copy(update=dict(world.evaluate))


class Notes:
    """A recorder that keeps which trials ended, with which figures, None after a failure."""

    def __init__(self, name: str = "study", ends: list[tuple[str, object]] | None = None) -> None:
        self.name, self.ends, self.rows = name, [] if ends is None else ends, 0

    def log(self, _metrics: Mapping[str, float], _step: int) -> None:
        self.rows += 1

    def child(self, name: str, _settings: object, _tags: object) -> "Notes":
        return Notes(name, self.ends)

    def finish(self, out: Path | None, metrics: Mapping[str, float] | None = None) -> dict[str, object]:
        if self.name != "study":
            self.ends.append((self.name, None if out is None else dict(metrics or {})))
        return {"tracked": False}


Run = Callable[..., tuple[list[tuple[str, object]], list[str]]]


@pytest.fixture(scope="session")
def run(world: World, evaluation: Callable[[World], Evaluate], features: Path) -> Run:  # noqa: F811
    """Run a search into a folder, `state/` and `out/`; returns how its trials ended and what it said."""

    def start(folder: Path, search: Search, train: Train | None = None) -> tuple[list[tuple[str, object]], list[str]]:
        notes, said = Notes(), []
        own = world if train is None else world.model_copy(update={"train": train})
        (folder / "out").mkdir(parents=True, exist_ok=True)
        task = Task(own, evaluation(own), search, features, folder / "state")
        run_search(task, lambda _: notes, said.append, folder / "out")  # type: ignore[arg-type,return-value]
        return notes.ends, said

    return start
