"""docs/changing-the-method.md, done in a copy of the package: one function and one line of `params.yaml`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from lookahead.config import Checkpoints
from tests.modules import PACKAGE, ROOT
from tests.training.conftest import features  # noqa: F401  (fixture)

PAGE = (ROOT / "docs" / "changing-the-method.md").read_text(encoding="utf-8")


class Part(NamedTuple):
    """A part of the method: its module, a function by the page's rule, its place in `params.yaml`, the name there."""

    module: str
    function: str
    path: str
    now: str


PARTS = {
    "density": Part(
        "annealing",
        '''
def mine_density(strength: float, timesteps: int) -> Tensor:
    """p(t) ~ exp(a t / T), (T,) float64."""
    return _normalised(torch.exp(strength * torch.arange(timesteps, dtype=torch.float64) / timesteps))
''',
        "lookahead.density.kind",
        "cosine",
    ),
    "distance": Part(
        "lookahead",
        '''
def mine_distance(embedding: Tensor, reference: Tensor) -> Tensor:
    """Twice the distance of Eq. 4, (B,)."""
    return 2 * identity_distance(embedding, reference)
''',
        "lookahead.distance",
        "identity",
    ),
    "stepping": Part(
        "preview",
        '''
def mine_stepping(schedule, predict, noisy, t, noises=(), gradient_steps=1, boundary=False) -> Tensor:  # type: ignore
    """Half of the preview's latents."""
    return consistency_stepping(schedule, predict, noisy, t, noises, gradient_steps, boundary) / 2
''',
        "lookahead.preview.stepping",
        "consistency",
    ),
}
TRAIN = """
import json, sys
from pathlib import Path
import torch
from lookahead.config import Checkpoints, with_overrides, read_params
from lookahead.training.losses import micro_step, read
from lookahead.training.setup import open_training
torch.set_num_threads(1)
checkpoints, features, path, value = sys.argv[1:]
small = {"batch": 2, "accumulate": 1, "lookahead.density.strength": 1.0, "lookahead.density.final_strength": 1.0}
settings = with_overrides(read_params().worlds["miniature"].train, small | {path: value})
training = open_training(Checkpoints.model_validate_json(checkpoints), settings, Path(features))
row = read([micro_step(training, 0, 0.0)])[0]
print(json.dumps([row["loss_lookahead"], row["t_lookahead"]]))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and the parameters."""
    shutil.copytree(PACKAGE, tmp_path / "src/lookahead", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    place = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-c", TRAIN, *words]
    return subprocess.run(command, cwd=root, env=place, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", PARTS)
def test_one_function_and_one_line_add_a_part(
    name: str,
    copy: Path,
    tiny_world: Checkpoints,
    features: Path,  # noqa: F811
) -> None:
    part, given = PARTS[name], (tiny_world.model_dump_json(), str(features))
    before = run(copy, *given, part.path, part.now)
    assert before.returncode == 0, before.stderr
    refused = run(copy, *given, part.path, "mine")
    assert refused.returncode != 0 and f"method/{part.module}.py defines no mine_{name}" in refused.stderr
    with (copy / f"src/lookahead/method/{part.module}.py").open("a", encoding="utf-8") as file:
        file.write(part.function)
    after = run(copy, *given, part.path, "mine")
    assert after.returncode == 0, after.stderr
    assert after.stdout != before.stdout


def test_the_page_names_what_the_steps_touch() -> None:
    for name, part in PARTS.items():
        assert f"src/lookahead/method/{part.module}.py" in PAGE and f"mine_{name}" in PAGE
        assert re.search(rf"train\.{re.escape(part.path)}: mine", PAGE)
