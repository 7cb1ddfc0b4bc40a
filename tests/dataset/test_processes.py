"""One process, two of them, and runs that were killed again and again: the same bytes."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from lookahead.config import Checkpoints, Generate
from lookahead.dataset.synthesis import synthesise
from tests.dataset.conftest import no_log
from tests.launcher import launch
from tests.project import files_of

CODE = """
import sys
import torch
from pathlib import Path
from lookahead.config import Checkpoints, Generate
from lookahead.dataset.synthesis import assist, synthesise
from lookahead.world.processes import launched

checkpoints, settings, work = sys.argv[1:]
torch.set_num_threads(1)
if launched().first:
    loaded = Checkpoints.model_validate_json(checkpoints), Generate.model_validate_json(settings)
    synthesise(*loaded, (), Path(work), lambda _metrics, _step: None)
else:
    assist()
"""


@pytest.fixture
def many(settings: Generate) -> Generate:
    """Sixty pictures in ten shards."""
    return settings.model_copy(update={"people": 12})


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "draw.py"
    path.write_text(CODE)
    return path


def words(world: Checkpoints, settings: Generate, work: Path) -> list[str]:
    return [world.model_dump_json(), settings.model_dump_json(), str(work)]


@pytest.mark.slow
def test_two_processes_of_accelerate_give_the_bytes_of_one(
    tiny_world: Checkpoints, many: Generate, script: Path, tmp_path: Path
) -> None:
    synthesise(tiny_world, many, (), tmp_path / "one", no_log)
    said = launch(str(script), *words(tiny_world, many, tmp_path / "two"))
    assert files_of(tmp_path / "two") == files_of(tmp_path / "one")
    assert "drawing people" in said


def finish_or_kill(world: Checkpoints, settings: Generate, work: Path, seconds: float) -> bool:
    """Fork a process that draws into `work`, kill it after a while; whether it was killed before it ended.

    A fork needs no time for imports, so that the moments fall into the work.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            synthesise(world, settings, (), work, no_log)
            status = 0
        finally:
            os._exit(status)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_runs_killed_at_twenty_random_moments_end_with_the_same_bytes(
    tiny_world: Checkpoints, many: Generate, tmp_path: Path
) -> None:
    start = time.perf_counter()
    synthesise(tiny_world, many, (), tmp_path / "whole", no_log)
    took = time.perf_counter() - start
    draw, killed = random.Random(0), 0
    for attempt in range(200):
        work = tmp_path / str(attempt)
        if finish_or_kill(tiny_world, many, work, draw.uniform(0, took)):
            killed += 1
            synthesise(tiny_world, many, (), work, no_log)
        assert files_of(work) == files_of(tmp_path / "whole")
        if killed == 20:
            return
    pytest.fail(f"only {killed} of the runs could be killed")
