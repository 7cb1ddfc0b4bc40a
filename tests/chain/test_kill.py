"""`kill -9` in the middle of a stage: the same command continues and ends with the same output."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from lookahead.artifacts import STATE, digest_paths
from tests.chain.conftest import run_script

FIRST = {
    "generate": "*/shards/*.parquet",
    "features": "*/images/*.safetensors",
    "train": "*/state.safetensors",
    "evaluate": "*/pictures/**/*.parquet",
}  # what a stage writes when the first part of its work is done
KEPT = ("generate", "features")  # their parts are published as they are
PATIENCE = 300.0  # seconds


def wait_for(pattern: str, folder: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while not list(folder.glob(pattern)):
        assert process.poll() is None and time.monotonic() < end, "the stage ended before its first part"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("stage", FIRST)
def test_a_killed_stage_continues(repository: Path, stage: str) -> None:
    output = f"{stage}/noise_only" if stage == "train" else stage
    before = digest_paths([Path("runs/tiny") / output])
    variant = ["--variant", "noise_only"] if stage == "train" else []
    process = subprocess.Popen([sys.executable, f"stages/{stage}.py", *variant], stderr=subprocess.DEVNULL)
    wait_for(FIRST[stage], STATE / "work" / "tiny" / output, process)
    process.kill()
    assert process.wait() == -9
    made = {path.name: path.stat().st_mtime_ns for path in (STATE / "work" / "tiny" / output).glob(FIRST[stage])}
    assert run_script(stage, *variant) == ""
    assert digest_paths([Path("runs/tiny") / output]) == before
    published = {path.name: path.stat().st_mtime_ns for path in (Path("runs/tiny") / output).rglob("*")}
    assert stage not in KEPT or made.items() <= published.items()  # not made a second time
