"""One process, two of them, and two of which one dies or comes late: the same training up to rounding."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lookahead.config import Checkpoints, Train
from lookahead.errors import InputError
from lookahead.training import loop
from lookahead.training.loop import train
from tests.launcher import free_port, launch
from tests.tiny import no_log
from tests.training.conftest import changed

CODE = """
import os
import shutil
import sys
import time
import torch
from pathlib import Path
from lookahead.config import Checkpoints, Train
from lookahead.errors import InputError
from lookahead.training import loop
from lookahead.training.checkpoint import resume_folder
from lookahead.world.distributed import distributed, is_main_process, wait_for_everyone

checkpoints, settings, features, work, deadly, late = sys.argv[1:]
assert distributed().num_processes == 2, "each process would train alone"
torch.set_num_threads(1)
step, opening = loop.train_step, loop.open_training

def watched(training, done):
    if done == int(deadly) and not is_main_process():
        os._exit(9)
    return step(training, done)

def slowly(*words):
    time.sleep(0 if is_main_process() else float(late))
    return opening(*words)

loop.train_step, loop.open_training = watched, slowly
loaded = Checkpoints.model_validate_json(checkpoints), Train.model_validate_json(settings)
try:
    loop.train(*loaded, Path(features), Path(work), lambda _row, _step: None)
    if float(late) and is_main_process():
        shutil.rmtree(resume_folder(Path(work)))  # as whoever needs it no longer
    wait_for_everyone()
except InputError as error:
    sys.exit(f"error: {error}")
"""
NEVER, DEAD = -1, 9


@pytest.fixture
def words(tiny_world: Checkpoints, with_kv: Train, features: Path, tmp_path: Path) -> Callable[..., list[str]]:
    """The script and its words: the step at which the second process dies, and how many seconds it comes late."""
    (tmp_path / "train.py").write_text(CODE)
    given = (tmp_path / "train.py", tiny_world.model_dump_json(), with_kv.model_dump_json(), features, tmp_path / "two")
    return lambda deadly=NEVER, late=0: list(map(str, (*given, deadly, late)))


def machines(words: list[str]) -> subprocess.CompletedProcess:
    """Train with a process on each of two machines, with no launcher to watch them; the main one's output."""
    command = [sys.executable, *words]
    common = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [common | {"RANK": rank, "LOCAL_RANK": "0", "WORLD_SIZE": "2"} for rank in ("0", "1")]
    with subprocess.Popen(command, env=ranks[1], stderr=subprocess.DEVNULL) as other:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=ranks[0])
        assert other.wait() == DEAD
    return done


def assert_equal_trainings(one: Path, other: Path) -> None:
    for name in ("ip-adapter.safetensors", "kv.safetensors"):
        first, second = load_file(one / "encoder" / name), load_file(other / "encoder" / name)
        assert all(first[key].sub(second[key]).abs().max() < 1e-5 for key in first)
    numbers = [json.loads((work / "metrics.json").read_text()) for work in (one, other)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-3)


@pytest.fixture(scope="module")
def one(tiny_world: Checkpoints, with_kv: Train, features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one process."""
    work = tmp_path_factory.mktemp("one") / "one"
    train(tiny_world, with_kv, features, work, no_log)
    return work


@pytest.mark.slow
def test_two_processes_and_one_take_the_same_steps(one, words, tiny_world, with_kv, features, tmp_path):
    """And after the last checkpoint a resumed run ends, also where one process is late and the other has finished."""
    launch(*words())
    assert_equal_trainings(one, tmp_path / "two")
    (tmp_path / "two" / "metrics.json").unlink()
    launch(*words(late=5))
    assert_equal_trainings(one, tmp_path / "two")
    alone = changed(with_kv, {"gradient_accumulation_steps": 1})
    train(tiny_world, alone, features, tmp_path / "other", no_log)
    with pytest.raises(AssertionError):  # the comparison can fail
        assert_equal_trainings(one, tmp_path / "other")


@pytest.mark.slow
def test_when_a_process_dies_the_run_ends_with_a_message_and_continues(one, words, tmp_path):
    done = machines(words(deadly=3))
    assert done.returncode == 1 and "error: another process of this launch ended" in done.stderr
    assert [path.name for path in (tmp_path / "two.resume").glob("step*")] == ["step_000002.safetensors"]
    assert not (tmp_path / "two" / "encoder").exists()
    launch(*words())
    assert_equal_trainings(one, tmp_path / "two")


def test_a_number_of_processes_that_cannot_share_is_refused(tiny_world, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "distributed", lambda: type("Three", (), {"num_processes": 3}))
    with pytest.raises(InputError, match=r"gradient_accumulation_steps is 2, .* make it a multiple of 3"):
        train(tiny_world, settings, tmp_path, tmp_path, no_log)
