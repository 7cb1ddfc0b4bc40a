"""One process, two of them, and two of which one dies: the same training up to rounding."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from lookahead.training.fit import train
from lookahead.training.shares import check_shares, own_indices
from safetensors.torch import load_file

from lookahead.config import Checkpoints, Train
from lookahead.errors import InputError
from lookahead.world.processes import Processes
from tests.launcher import launch
from tests.training.conftest import changed

CODE = """
import os
import sys
import torch
from pathlib import Path
from lookahead.config import Checkpoints, Train
from lookahead.errors import InputError
from lookahead.training import fit
from lookahead.world.processes import launched

checkpoints, settings, features, work, deadly = sys.argv[1:]
torch.set_num_threads(1)
step = fit.train_step

def watched(training, done):
    if done == int(deadly) and not launched().first:
        os._exit(9)
    return step(training, done)

fit.train_step = watched
try:
    if launched().first:
        loaded = Checkpoints.model_validate_json(checkpoints), Train.model_validate_json(settings)
        fit.train(*loaded, Path(features), Path(work), lambda _row, _step: None)
    else:
        fit.assist()
except InputError as error:
    sys.exit(f"error: {error}")
"""
NEVER, DEAD = -1, 9


def command(world: Checkpoints, settings: Train, features: Path, work: Path, deadly: int) -> list[str]:
    script = work.with_name("train.py")
    script.write_text(CODE)
    return [str(script), world.model_dump_json(), settings.model_dump_json(), str(features), str(work), str(deadly)]


def machines(words: list[str]) -> subprocess.CompletedProcess:
    """Train with a process on each of two machines, which no launcher watches over; what the first one says."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = os.environ | {"OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [common | {"RANK": rank, "LOCAL_RANK": "0", "WORLD_SIZE": "2"} for rank in ("0", "1")]
    with subprocess.Popen([sys.executable, *words], env=ranks[1], stderr=subprocess.DEVNULL) as other:
        done = subprocess.run(
            [sys.executable, *words], capture_output=True, text=True, check=False, timeout=300, env=ranks[0]
        )
        assert other.wait() == DEAD
    return done


def assert_equal_trainings(one: Path, other: Path) -> None:
    for name in ("ip-adapter.safetensors", "kv.safetensors"):
        first, second = load_file(one / "encoder" / name), load_file(other / "encoder" / name)
        assert all(first[key].sub(second[key]).abs().max() < 1e-5 for key in first)
    numbers = [json.loads((work / "metrics.json").read_text()) for work in (one, other)]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-3)


@pytest.mark.slow
def test_two_processes_and_one_make_the_same_steps(
    tiny_world: Checkpoints, with_kv: Train, features: Path, tmp_path: Path
) -> None:
    train(tiny_world, with_kv, features, tmp_path / "one", lambda _row, _step: None)
    launch(*command(tiny_world, with_kv, features, tmp_path / "two", NEVER))
    assert_equal_trainings(tmp_path / "one", tmp_path / "two")
    alone = changed(with_kv, {"accumulate": 1})
    train(tiny_world, alone, features, tmp_path / "other", lambda _row, _step: None)
    with pytest.raises(AssertionError):  # the comparison can fail
        assert_equal_trainings(tmp_path / "one", tmp_path / "other")


@pytest.mark.slow
def test_when_a_process_dies_the_run_ends_with_a_message_and_continues(
    tiny_world: Checkpoints, with_kv: Train, features: Path, tmp_path: Path
) -> None:
    train(tiny_world, with_kv, features, tmp_path / "one", lambda _row, _step: None)
    done = machines(command(tiny_world, with_kv, features, tmp_path / "two", 3))
    assert done.returncode == 1 and "error: another process of this launch ended" in done.stderr
    assert [path.name for path in sorted((tmp_path / "two.resume").glob("*"))] == ["step_000002.safetensors"]
    assert not (tmp_path / "two" / "encoder").exists()
    launch(*command(tiny_world, with_kv, features, tmp_path / "two", NEVER))
    assert_equal_trainings(tmp_path / "one", tmp_path / "two")


def test_micro_batches_are_dealt_out_and_each_once(settings: Train) -> None:
    four = changed(settings, {"accumulate": 4})
    dealt = [own_indices(four, 5, Processes(rank, rank, 2)) for rank in (0, 1)]
    assert dealt == [[20, 22], [21, 23]]
    assert own_indices(four, 5, Processes(0, 0, 1)) == [20, 21, 22, 23]


def test_a_number_of_processes_that_cannot_share_is_refused(settings: Train) -> None:
    check_shares(settings, Processes(0, 0, 2))
    with pytest.raises(InputError, match=r"train\.accumulate is 2, .* make it a multiple of 3"):
        check_shares(settings, Processes(0, 0, 3))
