"""The chain's own commands, as `dvc repro` runs them, started by a launcher: two processes write what one writes."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from lookahead.artifacts import digest_paths
from lookahead.evaluation.evaluator import CACHE
from tests.launcher import LAUNCHER
from tests.modules import ROOT


def dvc_runs(stage: str, *launcher: str) -> None:
    """Run a stage's command in a shell, as DVC does."""
    entry = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    command = entry.get("do", entry)["cmd"].replace("${world}", "tiny").replace("${item.variant}", "lookahead")
    environment = os.environ | {"LOOKAHEAD_LAUNCH": " ".join(launcher)}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["generate", "features", "evaluate"])
def test_a_launched_stage_writes_the_same_bytes(project: Path, stage: str) -> None:
    before = digest_paths([Path("runs/tiny") / stage])
    shutil.rmtree(CACHE)
    shutil.rmtree(Path("runs/tiny") / stage)
    dvc_runs(stage, *LAUNCHER, "--no_python")
    assert digest_paths([Path("runs/tiny") / stage]) == before


@pytest.mark.slow
def test_a_launched_training_writes_the_same_encoder_up_to_rounding(project: Path, change) -> None:
    change("worlds.tiny.train.gradient_accumulation_steps", 2)
    encoder, trained = Path("runs/tiny/train/lookahead/encoder/ip-adapter.safetensors"), []
    for launcher in ([], [*LAUNCHER, "--no_python"]):
        shutil.rmtree("state/checkpoints")  # of finished trainings, which would only be published again
        dvc_runs("train", *launcher)
        trained.append(load_file(encoder))
    assert all(trained[0][name].sub(trained[1][name]).abs().max() < 1e-5 for name in trained[0])
