"""The plan of a world: the work of its stages, and the time that they take here."""

from pathlib import Path

import pytest
from transformers import CLIPVisionConfig
from typer.testing import CliRunner

from benchmarks.sdxl import FULL, SD15
from lookahead import cli
from lookahead.config import Params, read_params, with_overrides
from lookahead.plan import ASSUMED, COMPUTED, KNOWN, counted, duration, estimates, peak_memory, record, stages
from tests.modules import ROOT


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The committed parameters, in a folder without measured rates."""
    for name in ("params.yaml", "protocols", "prompts", "models"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return read_params()


@pytest.mark.parametrize(("base", "sizes"), zip(KNOWN, (SD15, FULL), strict=True))
def test_what_is_known_of_a_base_is_counted_of_its_published_configuration(base, sizes):
    side, known = KNOWN[base]
    found = counted(sizes.unet, sizes.vae, {}, CLIPVisionConfig(**sizes.vision), side)
    assert found[:5] == pytest.approx(known[:5], abs=1e-3)
    assert found.features == pytest.approx(known.features, rel=0.15)


def test_work_grows_with_people_and_steps(params):
    before = {stage.name: stage.tflop for stage in stages(params.active)}
    doubled = with_overrides(params.active, {"generate.people": 2 * params.active.generate.people})
    after = {stage.name: stage.tflop for stage in stages(doubled)}
    assert after["generate"] == pytest.approx(2 * before["generate"]) and after["evaluate"] == before["evaluate"]
    assert before["train/lookahead"] > 1.9 * before["train/noise_only"]


def test_a_measured_rate_replaces_the_assumed_one_and_the_slowest_counts(params):
    world = params.active
    assert {each.basis for each in estimates(world)} == {"assumed"}
    record(world, "generate", 120.0)
    record(world, "generate", 60.0)  # continued, so that it seems fast
    record(world, "photos", 60.0)  # which has no plan
    record(world, "features", 60.0)
    found = {each.stage.name: each for each in estimates(world)}
    assert found["generate"].hours * 3600 == pytest.approx(120) and found["generate"].basis == "measured"
    assert found["evaluate"].basis == "from other stages"
    assert found["generate"].memory == pytest.approx(peak_memory(), rel=0.2) and found["evaluate"].memory is None


def test_memory_is_known_of_a_training_before_it_ran(params):
    found = {each.stage.name: each.memory for each in estimates(params.of("sd15"))}
    assert found["train/lookahead"] == COMPUTED["stable-diffusion-v1-5/stable-diffusion-v1-5"]["train"]
    assert found["generate"] is None


@pytest.mark.parametrize("world", ["miniature", "sd15", "sdxl", "sdxl_paper"])
def test_the_command_says_it_without_a_gpu_and_without_weights(params, world):
    shown = CliRunner().invoke(cli.app, ["plan", "--world", world])
    assert shown.exit_code == 0 and f"at {ASSUMED['cuda']:.0f} TFLOP/s" in shown.output
    assert f"worlds.{world}.generate.people" in shown.output


def test_durations():
    assert [duration(hours) for hours in (0.001, 0.02, 0.5, 3, 60)] == ["seconds", "1 min", "30 min", "3 h", "2 days"]
