"""docs/changing-the-method.md, "A new density of timesteps", done step by step in a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.modules import PACKAGE, ROOT

PAGE = (ROOT / "docs" / "changing-the-method.md").read_text(encoding="utf-8")
FUNCTION = '''

def late_density(strength: float, timesteps: int) -> Tensor:
    """p(t) ~ exp(a t / T), (T,) float64 (a test's)."""
    return _normalised(torch.exp(strength * torch.arange(timesteps, dtype=torch.float64) / timesteps))
'''
CODE = """
import torch
from lookahead.config import read_params
from lookahead.training.draws import density_at
settings = read_params().worlds["miniature"].train.lookahead.density
assert settings.kind == "late", settings.kind
drawn = density_at(settings, 1000, 0.0)
expected = torch.exp(settings.strength * torch.arange(1000, dtype=torch.float64) / 1000)
expected[: settings.timestep_min], expected[settings.timestep_max + 1 :] = 0, 0
assert torch.allclose(drawn, expected / expected.sum()) and not torch.allclose(drawn[:-1], drawn[1:])
"""


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (path.name, old)
    path.write_text(text.replace(old, new), encoding="utf-8")


def steps(root: Path) -> list[tuple[Path, str, str]]:
    """The page's numbered steps, in its order: file, what stands there, what stands there afterwards."""
    annealing, train = (root / "src/lookahead" / name for name in ("method/annealing.py", "config/train.py"))
    head = "def timestep_density("
    return [
        (annealing, head, FUNCTION.lstrip() + "\n\n" + head),
        (annealing, '"logit_normal"]\nStrength', '"logit_normal", "late"]\nStrength'),
        (
            annealing,
            '        "power": lambda',
            '        "late": lambda: late_density(strength, timesteps),\n        "power": lambda',
        ),
        (train, '"logit_normal"]', '"logit_normal", "late"]'),
        (root / "params.yaml", "REPLACED", "late"),
    ]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and the parameters, with the density's kind of the miniature's lookahead loss made easy to find."""
    shutil.copytree(PACKAGE, tmp_path / "src/lookahead", ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    marked, count = re.subn(r"(\n        density:\n          kind: )cosine", r"\1REPLACED", text, count=1)
    assert count == 1
    (tmp_path / "params.yaml").write_text(marked, encoding="utf-8")
    return tmp_path


def run(root: Path) -> subprocess.CompletedProcess[str]:
    place = {**os.environ, "PYTHONPATH": str(root / "src")}
    return subprocess.run(
        [sys.executable, "-c", CODE], cwd=root, env=place, capture_output=True, text=True, check=False
    )


def test_the_steps_of_the_page_add_a_density(copy: Path) -> None:
    for path, old, new in steps(copy):
        edit(path, old, new)
    done = run(copy)
    assert done.returncode == 0, done.stderr


def test_a_density_that_the_parameters_do_not_know_is_refused(copy: Path) -> None:
    """Without step 3 a misspelt name and a new one look alike: it is one message, not a late crash."""
    for path, old, new in steps(copy):
        if path.name != "train.py":
            edit(path, old, new)
    done = run(copy)
    assert done.returncode != 0 and "params.yaml is not valid" in done.stderr and "late" in done.stderr


def test_the_page_names_the_places_that_the_steps_touch() -> None:
    section = PAGE[PAGE.index("## A new density") : PAGE.index("## A new preview")]
    for place in (
        "annealing.timestep_density",
        "DensityKind",
        "lookahead.config.Density",
        "train.lookahead.density.kind",
    ):
        assert place in section
