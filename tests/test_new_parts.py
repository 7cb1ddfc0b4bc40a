"""docs/changing-the-method.md, done in a copy of the package: a function, its name in two places, a line of params."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, get_args

import pytest

from lookahead.config import Checkpoints
from lookahead.config.train import DensityName, DistanceName, PreviewName
from lookahead.method.annealing import DENSITIES
from lookahead.method.lookahead import DISTANCES
from lookahead.method.preview import PREVIEWS
from tests.modules import PACKAGE, ROOT
from tests.training.conftest import features  # noqa: F401  (fixture)


class Part(NamedTuple):
    """A part of the method: its module and dictionary there, its names' type, its parameter, and a new function."""

    module: str
    dictionary: str
    names: str
    path: str
    now: str
    signature: str
    result: str


PARTS = {
    "density": Part(
        *("annealing", "DENSITIES", "DensityName", "lookahead.density.kind", "cosine"),
        "(strength: float, timesteps: int) -> Tensor",
        "_normalised(torch.exp(strength * torch.arange(timesteps, dtype=torch.float64) / timesteps))",
    ),
    "distance": Part(
        *("lookahead", "DISTANCES", "DistanceName", "lookahead.distance", "identity"),
        "(embedding: Tensor, reference: Tensor) -> Tensor",
        "2 * identity_distance(embedding, reference)",
    ),
    "stepping": Part(
        *("preview", "PREVIEWS", "PreviewName", "lookahead.preview.stepping", "consistency"),
        "(schedule, predict, noisy, t, noises=(), gradient_steps=1, boundary=False)",
        "consistency_stepping(schedule, predict, noisy, t, noises, gradient_steps, boundary) / 2",
    ),
}
TRAIN = """
import json, sys
from pathlib import Path
import torch
from lookahead.config import Checkpoints, with_overrides, read_params
torch.set_num_threads(1)
checkpoints, features, path, value = sys.argv[1:]
small = {"batch_size": 2, "gradient_accumulation_steps": 1}
small |= {"lookahead.density.strength": 1.0, "lookahead.density.final_strength": 1.0}
settings = with_overrides(read_params().worlds["miniature"].train, small | {path: value})
from lookahead.training.losses import read
from lookahead.training.loop import backward
from lookahead.training.networks import open_training
training = open_training(Checkpoints.model_validate_json(checkpoints), settings, Path(features))
row = read([backward(training, 0)])[0]
print(json.dumps([row["loss_lookahead"], row["t_lookahead"]]))
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and the parameters."""
    shutil.copytree(PACKAGE, tmp_path / "src/lookahead", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def run(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-c", TRAIN, *words]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


def replace_once(path: Path, old: str, new: str) -> None:
    """Replace a text that is there once."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} in {path}"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("name", PARTS)
def test_a_function_and_its_name_add_a_part(
    name: str,
    copy: Path,
    tiny_world: Checkpoints,
    features: Path,  # noqa: F811
) -> None:
    part, given = PARTS[name], (tiny_world.model_dump_json(), str(features))
    before = run(copy, *given, part.path, part.now)
    assert before.returncode == 0, before.stderr
    refused = run(copy, *given, part.path, "mine")
    assert refused.returncode != 0 and f"{part.path}: Input should be" in refused.stderr and part.now in refused.stderr
    module = copy / f"src/lookahead/method/{part.module}.py"
    line = next(line for line in module.read_text(encoding="utf-8").splitlines() if line.startswith(part.dictionary))
    entry = line.replace("{", f'{{"mine": mine_{name}, ')
    replace_once(module, line, f"def mine_{name}{part.signature}:\n    return {part.result}\n\n\n{entry}")
    replace_once(copy / "src/lookahead/config/train.py", f"{part.names} = Literal[", f'{part.names} = Literal["mine", ')
    after = run(copy, *given, part.path, "mine")
    assert after.returncode == 0, after.stderr
    assert after.stdout != before.stdout


def test_config_has_the_names_of_the_dictionaries() -> None:
    pairs = ((DensityName, DENSITIES), (DistanceName, DISTANCES), (PreviewName, PREVIEWS))
    assert all(get_args(names) == tuple(functions) for names, functions in pairs)
