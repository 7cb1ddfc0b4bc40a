"""The loop on the tiny world: what it writes, and that being killed changes nothing."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from lookahead import world
from lookahead.config import Checkpoints, Train
from lookahead.errors import InputError
from lookahead.training.fit import train
from lookahead.training.rates import rate_factor
from tests.training.conftest import changed

WEIGHTS = Path("encoder/ip-adapter.safetensors")


class Killed(Exception):
    """Stands for a kill at a moment that the test chooses."""


def run(checkpoints: Checkpoints, settings: Train, features: Path, work: Path, stop=None) -> list[int]:
    steps = []

    def log(row, step):
        steps.append(step)
        assert all(isinstance(value, float) and math.isfinite(value) for value in row.values())
        if step == stop:
            raise Killed

    train(checkpoints, settings, features, work, log)
    return steps


@pytest.fixture(scope="module")
def whole(tiny_world, features, settings, tmp_path_factory) -> Path:
    """The output of an undisturbed run."""
    work = tmp_path_factory.mktemp("whole") / "work"
    run(tiny_world, settings, features, work)
    return work


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_output_is_the_contract(whole, settings):
    assert sorted(contents(whole)) == [
        "curves.csv",
        str(WEIGHTS),
        "metrics.json",
        "samples/step_0000.png",
        "samples/step_0003.png",
        "samples/step_0006.png",
    ]
    rows = list(csv.DictReader((whole / "curves.csv").open()))
    assert [row["step"] for row in rows] == [str(step) for step in range(1, settings.steps + 1)]
    names = {"loss_noise", "distance", "scale", "t_noise", "t_lookahead", "learning_rate", "gradient_norm"}
    assert names <= rows[0].keys()
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["steps"] == settings.steps and {"loss_noise", "distance", "parameters"} <= metrics.keys()
    assert Image.open(whole / "samples" / "step_0006.png").size == (5 * 64, settings.samples * 64)


def test_weights_open_with_diffusers(whole, tiny_world):
    pipe = world.open_pipeline(tiny_world)
    world.attach_adapter(pipe, whole / WEIGHTS)
    untuned = load_file(Path(tiny_world.adapter.source) / tiny_world.adapter.weight_name)
    tuned = load_file(whole / WEIGHTS)
    assert tuned.keys() == untuned.keys()
    assert all((tuned[name] != untuned[name]).any() for name in tuned)


@pytest.mark.parametrize("stop", [1, 4, 5])
def test_a_run_that_stops_ends_the_same_bit_for_bit(whole, tiny_world, features, settings, tmp_path, stop):
    work = tmp_path / "work"
    with pytest.raises(Killed):
        run(tiny_world, settings, features, work, stop=stop)
    assert not (work / WEIGHTS).exists()
    steps = run(tiny_world, settings, features, work)
    resumed_at = (stop - 1) // settings.checkpoint_every * settings.checkpoint_every
    assert steps == list(range(resumed_at + 1, settings.steps + 1))
    assert contents(work) == contents(whole)


def test_a_run_killed_by_the_system_ends_the_same(whole, tiny_world, features, settings, tmp_path):
    """kill -9 in a process of its own, right after a step that no checkpoint holds."""
    script = (
        "import os, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from lookahead.config import Checkpoints, Train\n"
        "from lookahead.training.fit import train\n"
        "torch.set_num_threads(1)\n"
        "world, settings, features, work = sys.argv[1:]\n"
        "def log(row, step):\n"
        "    if step == 5:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "train(Checkpoints.model_validate_json(world), Train.model_validate_json(settings), Path(features),\n"
        "      Path(work), log)\n"
    )
    work = tmp_path / "work"
    command = [sys.executable, "-c", script, tiny_world.model_dump_json(), settings.model_dump_json(), features, work]
    ended = subprocess.run(list(map(str, command)), env={**os.environ}, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()[-2000:]
    run(tiny_world, settings, features, work)
    assert contents(work) == contents(whole)


def test_noise_only_writes_no_lookahead_figures(tiny_world, features, settings, tmp_path, whole):
    run(tiny_world, changed(settings, {"lookahead": {"weight": 0.0}}), features, tmp_path / "work")
    alone = list(csv.DictReader((tmp_path / "work" / "curves.csv").open()))
    both = list(csv.DictReader((whole / "curves.csv").open()))
    assert "distance" not in alone[0]
    assert [row["t_noise"] for row in alone] == [row["t_noise"] for row in both]
    assert alone[0]["loss_noise"] == both[0]["loss_noise"]  # later ones differ: other weights
    assert contents(tmp_path / "work")["samples/step_0000.png"] == contents(whole)["samples/step_0000.png"]


def test_state_of_another_run_is_refused(tiny_world, features, settings, tmp_path):
    work = tmp_path / "work"
    with pytest.raises(Killed):
        run(tiny_world, settings, features, work, stop=4)
    with pytest.raises(InputError, match=r"step_000002\.safetensors holds the state of another training"):
        run(tiny_world, settings.model_copy(update={"learning_rate": 2e-3}), features, work)


def test_truncated_state_is_named(tiny_world, features, settings, tmp_path):
    work = tmp_path / "work"
    with pytest.raises(Killed):
        run(tiny_world, settings, features, work, stop=4)
    state = tmp_path / "work.resume" / "step_000002.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"step_000002\.safetensors"):
        run(tiny_world, settings, features, work)


def test_truncated_features_are_named(tiny_world, features, settings, tmp_path):
    copy = shutil.copytree(features, tmp_path / "features")
    path = copy / "images" / "00000.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"00000\.safetensors"):
        run(tiny_world, settings, copy, tmp_path / "work")


def test_a_breakdown_writes_no_weights(tiny_world, features, settings, tmp_path):
    with pytest.raises(InputError, match="training broke down"):
        run(tiny_world, settings.model_copy(update={"learning_rate": 1e30}), features, tmp_path / "work")
    assert not (tmp_path / "work" / WEIGHTS).exists()


def test_learning_rates(settings):
    factors = [rate_factor(settings, step) for step in range(6)]
    assert factors == [0.5, 1, 1, 1, 1, 1]
    assert rate_factor(changed(settings, {"warmup": 0}), 0) == 1
    linear = changed(settings, {"schedule": "linear", "steps": 12, "warmup": 2})
    assert [rate_factor(linear, step) for step in (0, 1, 2, 7)] == pytest.approx([0.5, 1, 1, 0.5])
    cosine = changed(linear, {"schedule": "cosine"})
    assert [rate_factor(cosine, step) for step in (2, 7, 11)] == pytest.approx(
        [1, 0.5, (1 + math.cos(0.9 * math.pi)) / 2]
    )


FULL = {
    "kv": {"enabled": True},
    "ema": 0.9,
    "schedule": "cosine",
    "share_timesteps": True,
    "noise_density": {"annealing": "linear", "final_strength": -0.5},
}


def test_with_everything_on_a_resumed_run_ends_the_same_bit_for_bit(tiny_world, features, settings, tmp_path):
    """KV-encoder, running mean, schedules, annealing, shared timesteps."""
    full = changed(settings, FULL)
    run(tiny_world, full, features, tmp_path / "whole")
    with pytest.raises(Killed):
        run(tiny_world, full, features, tmp_path / "work", stop=5)
    run(tiny_world, full, features, tmp_path / "work")
    assert contents(tmp_path / "work") == contents(tmp_path / "whole")
    written = load_file(tmp_path / "work" / "encoder" / "kv.safetensors")
    assert any(t.any() for name, t in written.items() if "lora_B" in name or name.endswith("up.weight"))


def test_the_running_mean_is_what_is_published(tiny_world, features, settings, tmp_path, whole):
    """The same steps, and weights between those of the start and those of the end."""
    run(tiny_world, changed(settings, {"ema": 0.9}), features, tmp_path / "work")
    untuned = load_file(Path(tiny_world.adapter.source) / tiny_world.adapter.weight_name)
    mean, last = load_file(tmp_path / "work" / WEIGHTS), load_file(whole / WEIGHTS)
    for name, start in untuned.items():
        assert 0 < (mean[name] - start).norm() < (last[name] - start).norm(), name


def test_the_last_checkpoints_are_kept(tiny_world, features, settings, tmp_path):
    run(tiny_world, settings, features, tmp_path / "work")
    kept = sorted(path.name for path in (tmp_path / "work.resume").iterdir())
    assert kept == ["step_000004.safetensors", "step_000006.safetensors"]
