"""A project in a folder of its own in which features exist and a search can be started as a command."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from lookahead.config import Checkpoints
from tests.launcher import COMMAND
from tests.modules import ROOT, SOURCE
from tests.project import WORLD, build_project, save_tree, tree_of
from tests.search.conftest import SEARCH
from tests.tiny import build_portraits


def build_search(root: Path, checkpoints: Checkpoints, features: Path, tracking: str, **changes: object) -> Path:
    """Write the project: the tiny world, its features, portraits of both splits, a search, a store of runs."""
    build_project(root, checkpoints)
    for split in ("search", "validation"):
        build_portraits(root / "models" / WORLD / "portraits" / split, 2)
    shutil.copytree(features, root / "runs" / WORLD / "features")
    tree: dict[str, Any] = tree_of(checkpoints)
    tree["worlds"][WORLD]["train"] |= {"steps": 2, "sample_every": 2}
    tree["studies"]["search"] = {"defaults": yaml.safe_load(yaml.safe_dump(SEARCH)), "worlds": {WORLD: changes}}
    tree["tracking"] = {"enabled": True, "uri": tracking, "experiment": "lookahead"}
    save_tree(root, tree)
    return root


def start(root: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start `lookahead search` in a project, as a worker of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{SOURCE}{os.pathsep}{ROOT}"}
    environment.pop("DVC_ROOT", None)
    command = [COMMAND, "search", *words]
    log = (root / "worker.log").open("ab")
    return subprocess.Popen(command, cwd=root, env=environment, stdout=log, stderr=log)
