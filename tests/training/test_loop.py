"""The loop on the tiny world: what it writes, and that being killed or extended changes nothing."""

import csv
import json
import logging
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file
from torch.testing import assert_close

from lookahead import world
from lookahead.errors import InputError
from lookahead.training.loop import lr_factor, train
from tests.project import files_of as contents
from tests.training.conftest import changed

WEIGHTS = Path("encoder/ip-adapter.safetensors")
FULL = {"kv": {"enabled": True}, "ema_decay": 0.9, "lr_scheduler": "cosine", "share_timesteps": True}
FULL |= {"noise_density": {"annealing": "linear", "final_strength": -0.5}}
COSINE = {"lr_scheduler": "cosine"}
ANNEALED = {"noise_density": {"annealing": "linear"}}


class Killed(Exception):
    """Stands for a kill at a moment that the test chooses."""


@pytest.fixture(scope="module")
def run(tiny_world, settings, features) -> Callable[..., list[int]]:
    """Trains with some settings changed; the steps that were done. `stop` is the one after which it is killed."""

    def run_changed(
        work: Path, changes: Mapping[str, object] | None = None, stop: int | None = None, **more
    ) -> list[int]:
        steps = []

        def log(row, step):
            steps.append(step)
            assert all(isinstance(value, float) and math.isfinite(value) for value in row.values())
            if step == stop:
                raise Killed

        with nullcontext() if stop is None else pytest.raises(Killed):
            train(tiny_world, changed(settings, changes or {}), features, work, log, **more)
        return steps

    return run_changed


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory) -> Path:
    """The output of an undisturbed run."""
    work = tmp_path_factory.mktemp("whole") / "work"
    run(work)
    return work


def test_output_is_the_contract(whole, settings):
    samples = [f"samples/step_{step:04d}.png" for step in (0, 3, 6)]
    assert sorted(contents(whole)) == ["curves.csv", str(WEIGHTS), "metrics.json", *samples]
    rows = list(csv.DictReader((whole / "curves.csv").open()))
    assert [row["step"] for row in rows] == [str(step) for step in range(1, settings.steps + 1)]
    names = {"loss_noise", "distance", "scale", "t_noise", "t_lookahead", "learning_rate", "gradient_norm"}
    assert names <= rows[0].keys()
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["steps"] == settings.steps and {"loss_noise", "distance", "parameters"} <= metrics.keys()
    assert Image.open(whole / "samples" / "step_0006.png").size == (5 * 64, settings.num_samples * 64)
    kept = sorted(path.name for path in whole.with_name("work.resume").glob("*.safetensors"))
    assert kept == ["step_000004.safetensors", "step_000006.safetensors"]


def test_weights_open_with_diffusers(whole, tiny_world):
    world.attach_adapter(world.open_pipeline(tiny_world), whole / WEIGHTS)
    untuned = load_file(Path(tiny_world.adapter.source) / tiny_world.adapter.weight_name)
    tuned = load_file(whole / WEIGHTS)
    assert tuned.keys() == untuned.keys() and all((tuned[name] != untuned[name]).any() for name in tuned)


@pytest.mark.parametrize("stop", [1, 5])
def test_a_run_that_stops_ends_the_same_bit_for_bit(whole, run, settings, tmp_path, stop):
    work = tmp_path / "work"
    run(work, stop=stop)
    assert not (work / WEIGHTS).exists()
    steps = run(work)
    resumed_at = (stop - 1) // settings.checkpoint_every * settings.checkpoint_every
    assert steps == list(range(resumed_at + 1, settings.steps + 1))
    assert contents(work) == contents(whole)


def test_with_everything_on_a_resumed_run_ends_the_same_bit_for_bit(run, tmp_path):
    """KV-encoder, running mean, schedules, annealing, shared timesteps.

    On a GPU only nearly: the backward pass of `grid_sample`, which aligns the faces, adds up in no fixed order there.
    """
    run(tmp_path / "whole", FULL)
    run(tmp_path / "work", FULL, stop=5)
    run(tmp_path / "work", FULL)
    if world.device().type == "cpu":
        assert contents(tmp_path / "work") == contents(tmp_path / "whole")
    assert_close(load_file(tmp_path / "work" / WEIGHTS), load_file(tmp_path / "whole" / WEIGHTS))
    written = load_file(tmp_path / "work" / "encoder" / "kv.safetensors")
    assert any(t.any() for name, t in written.items() if "lora_B" in name or name.endswith("up.weight"))


def test_more_steps_continue_a_training_that_has_ended(whole, run, tmp_path):
    work = tmp_path / "work"
    run(work, {"steps": 3})
    assert run(work) == [4, 5, 6]
    assert contents(work) == contents(whole)


@pytest.mark.parametrize(
    ("changes", "steps", "reason"),
    [(COSINE, 4, "train.lr_scheduler is cosine"), (ANNEALED, 4, "noise_density.annealing is linear"), ({}, 1, "more")],
)
def test_a_training_that_cannot_be_continued_starts_anew(run, tmp_path, caplog, changes, steps, reason):
    """Schedules stretch over the training; and no checkpoint leads back to fewer steps."""
    run(tmp_path / "work", changes | {"steps": 2})
    with caplog.at_level(logging.WARNING):
        done = run(tmp_path / "work", changes | {"steps": steps})
    assert done == list(range(1, steps + 1)) and reason in caplog.text
    assert run(tmp_path / "work", changes | {"steps": 2}) == []  # the other one is kept


def test_settings_that_decide_no_weight_lose_no_step(whole, run, tmp_path):
    work = tmp_path / "work"
    run(work, stop=5)
    others = {"checkpoint_every": 3, "checkpoints_total_limit": 1, "sample_every": 5, "num_samples": 1}
    assert run(work, others) == [5, 6]
    assert (work / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert Image.open(work / "samples" / "step_0006.png").size == (5 * 64, 64)


def test_state_of_another_run_is_refused_and_a_truncated_one_named(run, tmp_path):
    work = tmp_path / "work"
    run(work, stop=4)
    with pytest.raises(InputError, match=r"step_000002\.safetensors holds the state of another training"):
        run(work, {"learning_rate": 2e-3})
    state = tmp_path / "work.resume" / "step_000002.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"step_000002\.safetensors"):
        run(work)


def test_the_encoder_is_shown_at_every_checkpoint_before_the_last_step(whole, run, tiny_world, tmp_path):
    """Also at the one that a resumed run begins with; with EMA the running mean, which leaves the weights alone."""
    ema, seen = {"ema_decay": 0.9}, {}

    def look(encoder: Path, step: int) -> None:
        seen.setdefault(step, []).append(load_file(encoder / WEIGHTS.name))
        if step == 4 and len(seen[step]) == 1:
            raise Killed

    with pytest.raises(Killed):
        run(tmp_path / "work", ema, on_checkpoint=look)
    run(tmp_path / "work", ema, on_checkpoint=look)
    assert {step: len(encoders) for step, encoders in seen.items()} == {2: 1, 4: 2}
    assert all((seen[4][0][name] == tensor).all() for name, tensor in seen[4][1].items())
    untuned = load_file(Path(tiny_world.adapter.source) / tiny_world.adapter.weight_name)
    mean, last = load_file(tmp_path / "work" / WEIGHTS), load_file(whole / WEIGHTS)
    for name, start in untuned.items():  # the same steps, and weights between those of the start and those of the end
        assert 0 < (mean[name] - start).norm() < (last[name] - start).norm(), name


def test_noise_only_writes_no_lookahead_figures(whole, run, tmp_path):
    run(tmp_path / "work", {"lookahead": {"weight": 0.0}})
    alone = list(csv.DictReader((tmp_path / "work" / "curves.csv").open()))
    both = list(csv.DictReader((whole / "curves.csv").open()))
    assert "distance" not in alone[0]
    assert [row["t_noise"] for row in alone] == [row["t_noise"] for row in both]
    assert alone[0]["loss_noise"] == both[0]["loss_noise"]  # later ones differ: other weights
    assert contents(tmp_path / "work")["samples/step_0000.png"] == contents(whole)["samples/step_0000.png"]


def test_learning_rates(settings):
    assert [lr_factor(settings, step) for step in range(6)] == [0.5, 1, 1, 1, 1, 1]
    assert lr_factor(changed(settings, {"lr_warmup_steps": 0}), 0) == 1
    linear = changed(settings, {"lr_scheduler": "linear", "steps": 12, "lr_warmup_steps": 2})
    assert [lr_factor(linear, step) for step in (0, 1, 2, 7)] == pytest.approx([0.5, 1, 1, 0.5])
    cosine = changed(linear, {"lr_scheduler": "cosine"})
    expected = [1, 0.5, (1 + math.cos(0.9 * math.pi)) / 2]
    assert [lr_factor(cosine, step) for step in (2, 7, 11)] == pytest.approx(expected)
