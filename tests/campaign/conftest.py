"""The campaign's project, its seed, its length, and its figures at the end."""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lookahead.config import Checkpoints
from tests.campaign import children
from tests.project import STAGES, WORLD, build_project, save_tree
from tests.search.conftest import SEARCH
from tests.tiny import build_portraits

STUDY, TRIALS = "small", 2
_CELL = {"label": "a cell", "encoder": "train", "after": None, "train": {}, "sampling": {}, "against": []}
_STUDY = {"question": "Does it continue?", "split": "validation", "people": 2, "photo_prompts": 1, "seeds": [0]}
_STUDY |= {"protocol": {}, "samplers": {"full": {}}, "grid_people": 1, "cells": {"tuned": _CELL}}
WHOLE = ("_stays_mended", "_in_one_message", "_a_killed_command_continues")
FIGURES: Counter[str] = Counter()  # how many kills and inputs of which kind, for the summary
SMALL = {"num_inference_steps": 1, "known": {"min_psnr": 0.0, "prompts": f"prompts/{WORLD}.yaml"}}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--campaign-seed", type=int, default=0, help="decides every input and every moment of a kill")
    parser.addoption("--campaign-share", type=float, default=1.0, help="of the 200 inputs and 100 kills")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a shortened campaign keep one case of each test but of those in WHOLE."""
    if config.getoption("--campaign-share", 0.1) >= 1:
        return
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        name = item.nodeid.split("[")[0]
        if Path(__file__).parent in item.path.parents and not name.endswith(WHOLE):
            cases.setdefault(name, []).append(item)
    chance = random.Random(config.getoption("--campaign-seed", 0))
    kept = [chance.choice(found) for found in cases.values()]
    dropped = [item for found in cases.values() for item in found if item not in kept]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if FIGURES:
        found = ", ".join(f"{count} {what}" for what, count in sorted(FIGURES.items()))
        terminalreporter.write_line(f"campaign with seed {config.getoption('--campaign-seed', 0)}: {found}")


@pytest.fixture(scope="session")
def number(request: pytest.FixtureRequest) -> int:
    """The campaign's seed."""
    seed: int = request.config.getoption("--campaign-seed", 0)
    return seed


@pytest.fixture(scope="session")
def share(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """How many of so many the campaign tries, at least one."""
    part: float = request.config.getoption("--campaign-share", 0.1)
    return lambda whole: max(1, round(part * whole))


@pytest.fixture(scope="session", autouse=True)
def _imported() -> None:
    children.import_everything()


@pytest.fixture(scope="session")
def world_of_results(tiny_world: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which every stage has run, each in a child; copy it, do not change it."""
    root = build_project(tmp_path_factory.mktemp("results"), tiny_world)
    tree = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    personalize = tree["worlds"][WORLD]["personalize"]
    personalize |= {**SMALL, "fast": personalize["fast"] | {"num_inference_steps": 1}}
    tree["studies"] = {STUDY: _STUDY, "search": {"defaults": SEARCH | {"trials": TRIALS}, "worlds": {WORLD: {}}}}
    save_tree(root, tree)
    for split in ("search", "validation"):
        build_portraits(root / "models" / WORLD / "portraits" / split, 2)
    for name in STAGES:
        done = children.run(root, [name], root.with_name("log"))
        assert done.code == 0, done.said[-3000:]
    return root


@pytest.fixture
def place(world_of_results: Path, tmp_path: Path) -> Callable[[], Path]:
    """A copy of that project, a new one at every call, always below the same path."""
    root = tmp_path / "project"

    def new() -> Path:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(world_of_results, root, symlinks=True)
        return root

    return new


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a command writes."""
    return tmp_path / "log"


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal as most are, and a home of the test's own."""
    for name in set(os.environ) & {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOOKAHEAD_LAUNCH", "COLUMNS"}:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
