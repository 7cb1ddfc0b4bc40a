"""A repository in small: the real stages over the tiny world, run once from data to report."""

import runpy
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lookahead.config import Checkpoints
from tests.protocols import write_protocol
from tests.tiny import TREE, build_portraits

ROOT = Path(__file__).parents[2]
RUN_ORDER = ("generate", "features", "train", "evaluate")
SMALLER = {
    "generate": {
        "people": 3,
        "photos": 3,
        "stylised": 2,
        "batch_size": 4,
        "shard_size": 6,
        "min_images": 2,
        "min_photo_similarity": -1.0,
        "min_stylised_similarity": -1.0,
        "max_evaluation_similarity": 1.0,
        "prompts": "prompts/tiny.yaml",
    },
    "features": {"batch_size": 4},
    "train": {
        "steps": 4,
        "batch_size": 2,
        "lr_warmup_steps": 1,
        "checkpoint_every": 2,
        "sample_every": 2,
        "num_samples": 1,
    },
    "evaluate": {
        "protocol": "protocols/tiny.yaml",
        "batch": 8,
        "bootstrap": 100,
        "grid_people": 2,
        "previews": {"people": 2, "timesteps": [100, 900], "scales": [0.0, 1.0]},
        "diversity": {"people": 2, "prompts": 1, "seeds": 2},
    },
}
PROTOCOL = {"people": 2, "photo_prompts": 1, "steps": 2, "prompts": "prompts/tiny.yaml"}
Params = dict[str, Any]


def tiny_params(root: Path, checkpoints: Checkpoints) -> Params:
    """The miniature's parameters with little of everything, tracking off."""
    tree: Params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    world = tree["worlds"]["miniature"]
    for section, changes in SMALLER.items():
        world[section].update(changes)
    world["train"]["sample_num_inference_steps"] = 2
    world["checkpoints"] = checkpoints.model_dump(mode="json")
    tree["worlds"] = {"tiny": world}
    return tree | {"world": "tiny", "tracking": tree["tracking"] | {"enabled": False}}


def write_params(root: Path, tree: Params) -> None:
    """Replace the repository's parameters."""
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def read_tree(root: Path) -> Params:
    """The repository's parameters as a tree."""
    tree: Params = yaml.safe_load((root / "params.yaml").read_text(encoding="utf-8"))
    return tree


def relative_checkpoints(checkpoints: Checkpoints) -> Checkpoints:
    """The same parts, named from the repository's root as params.yaml names them."""
    source = str(Path(checkpoints.base).parent)
    return Checkpoints.model_validate_json(checkpoints.model_dump_json().replace(source, "models"))


def run_script(name: str, *arguments: str) -> str:
    """Run a stage as `python stages/NAME.py` would, in the current folder; its error, or nothing."""
    before, sys.argv = sys.argv, [f"stages/{name}.py", *arguments]
    try:
        runpy.run_path(f"stages/{name}.py", run_name="__main__")
    except SystemExit as stop:
        assert isinstance(stop.code, str), stop.code  # Python prints it, and exits with 1
        return stop.code
    finally:
        sys.argv = before
    return ""


LOOPBACK = ("127.0.0.1", "localhost")  # servers of other tests


@pytest.fixture(scope="session")
def calls() -> Iterator[list[str]]:
    """Every attempt to reach another machine while this fixture lives; all of them fail."""
    attempts: list[str] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def refuse(own: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] in LOOPBACK:
            return connect(own, address)
        attempts.append(str(address))
        raise OSError(f"no network here: {address}")

    def unknown(host: object, *rest: object, **options: object) -> object:
        if host in LOOPBACK:
            return look_up(host, *rest, **options)  # type: ignore[arg-type]
        attempts.append(str(host))
        raise socket.gaierror(f"no network here: {host}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket.socket, "connect_ex", refuse)
        patch.setattr(socket, "getaddrinfo", unknown)
        yield attempts


@pytest.fixture(scope="session")
def finished(calls: list[str], tiny_world: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which every stage has run, without a network; copy it, do not touch it."""
    root = tmp_path_factory.mktemp("finished")
    shutil.copytree(ROOT / "stages", root / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(Path(tiny_world.base).parent, root / "models")
    build_portraits(root / "portraits" / "test", 3)
    (root / "prompts").mkdir()
    (root / "prompts" / "tiny.yaml").write_text(yaml.safe_dump(TREE, sort_keys=False), encoding="utf-8")
    write_protocol(root / "protocols" / "tiny.yaml", "portraits", **PROTOCOL)
    write_params(root, tiny_params(root, relative_checkpoints(tiny_world)))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("OMP_NUM_THREADS", "1")
        for name in RUN_ORDER:
            assert run_script(name) == ""
    return root


@pytest.fixture
def repository(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished repository of the test's own, and the current folder."""
    root = tmp_path / "repository"
    shutil.copytree(finished, root)
    monkeypatch.chdir(root)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return root


@pytest.fixture
def change(repository: Path) -> Callable[[str, object], None]:
    """Change one parameter of the repository by its dotted name."""

    def put(name: str, value: object) -> None:
        tree = read_tree(repository)
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node[parent]
        node[last] = value
        write_params(repository, tree)

    return put
