"""`kill -9` in the middle of a stage: the same command continues and ends with the same output."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lookahead.artifacts import STATE, digest_paths
from lookahead.evaluation.evaluator import CACHE

FIRST = {
    "generate": "*/shards/*.parquet",
    "features": "*/images/*.safetensors",
    "train": "noise_only-*/step_*.safetensors",
    "evaluate": "*/*.parquet",
}  # what a stage writes when the first part of its work is done
KEPT = ("generate", "features")  # their parts are published as they are
PATIENCE = 600.0  # seconds


def whole(folder: Path, pattern: str) -> list[Path]:
    """The files, without those still being written."""
    return [path for path in folder.glob(pattern) if not path.name.startswith(".")]


@pytest.mark.slow
@pytest.mark.parametrize("stage", FIRST)
def test_a_killed_stage_continues(project: Path, stage: str) -> None:
    output = f"{stage}/noise_only" if stage == "train" else stage
    before = digest_paths([Path("runs/tiny") / output])
    command = [sys.executable, f"stages/{stage}.py", *(["--variant", "noise_only"] if stage == "train" else [])]
    own = {"evaluate": CACHE, "train": STATE / "checkpoints" / "tiny"}
    work = own.get(stage, STATE / "work" / "tiny" / output)
    shutil.rmtree(STATE / "checkpoints")  # of the finished trainings
    shutil.rmtree(CACHE)  # what the finished evaluation has drawn
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    end = time.monotonic() + PATIENCE
    while not whole(work, FIRST[stage]):
        assert process.poll() is None and time.monotonic() < end, "the stage ended before its first part"
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    first = {path.name: path.stat().st_mtime_ns for path in whole(work, FIRST[stage])}
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    assert digest_paths([Path("runs/tiny") / output]) == before
    published = {path.name: path.stat().st_mtime_ns for path in (Path("runs/tiny") / output).rglob("*")}
    assert stage not in KEPT or first.items() <= published.items()  # not drawn or encoded a second time
