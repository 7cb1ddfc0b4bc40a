"""The doctor: a finding for everything a world needs, and what to do about what is bad."""

import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from lookahead import cli, doctor
from lookahead.config import Checkpoints, Params, read_params, with_overrides
from lookahead.doctor import Finding, database, disk, examine, gpu, tracking
from lookahead.world import device
from lookahead.world.hub import downloads, parts
from lookahead.world.published import LICENCES
from tests.modules import ROOT


@pytest.fixture
def params(here: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The committed parameters, an empty home and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "hub"))
    monkeypatch.setenv("HOME", str(here))
    return read_params()


def found(params: Params, world: str, name: str = "checkpoints.") -> dict[str, Finding]:
    return {subject: one for subject, one in examine(params, params.worlds[world], None) if subject.startswith(name)}


def test_every_part_of_a_world_of_the_hub_is_bad_with_size_licence_and_command(params: Params) -> None:
    every = found(params, "sdxl")
    assert len(every) == len(parts(params.worlds["sdxl"].checkpoints))
    assert {one.state for one in every.values()} == {"bad"}
    assert all("`lookahead fetch --world sdxl`" in one.mend for one in every.values())
    assert "RAIL++" in every["checkpoints.base"].message and "missing, 6.8 GB" in every["checkpoints.base"].message
    assert "NON-COMMERCIAL" in every["checkpoints.generator.pipeline"].message
    worlds = (params.worlds[name].checkpoints for name in ("sd15", "sdxl", "sdxl_paper"))
    found_parts = [part for world in worlds for part in downloads(world)]
    commented = {"fal/AuraFace-v1", "rinong/lcm_lookahead"}  # rows of params.yaml to uncomment
    assert {part.source for part in found_parts} | commented == set(LICENCES)
    assert all(part.size > 0 for part in found_parts)


def test_what_may_not_be_used_commercially_is_one_finding(params: Params) -> None:
    (finding,) = found(params, "sdxl", "licences").values()
    assert finding.state == "note" and "docs/sdxl.md" in finding.message
    assert "commercial use: stabilityai/sdxl-turbo, buffalo_l, antelopev2, buffalo_s;" in finding.message
    assert found(params, "miniature", "licences")["licences"].state == "ok"


def test_face_packs_that_run_on_the_cpu_beside_a_gpu_are_a_finding(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.faces().state == "ok" or device().type == "cuda"
    monkeypatch.setattr(doctor, "device", lambda: torch.device("cuda"))  # this onnxruntime is the one for CPUs
    finding = doctor.faces()
    assert finding.state == "note" and "onnxruntime-gpu" in finding.message


def test_a_world_of_folders_is_well_and_a_damaged_part_is_bad(params: Params, own_world: Checkpoints) -> None:
    world = params.worlds["miniature"].model_copy(update={"checkpoints": own_world})
    params = params.model_copy(update={"worlds": {"miniature": world}})
    assert {one.state for one in found(params, "miniature").values()} == {"ok"}
    for name in ("lcm_lora/pytorch_lora_weights.safetensors", "faces/models/report/recogniser.onnx"):
        path = Path(own_world.base).parent / name
        path.write_bytes(path.read_bytes()[:500])
    damaged = {subject: one for subject, one in found(params, "miniature").items() if one.state == "bad"}
    assert set(damaged) == {"checkpoints.fast_child", "checkpoints.generator.lora", "checkpoints.faces.report"}
    assert "truncated" in damaged["checkpoints.fast_child"].mend


@pytest.mark.skipif(device().type == "cuda", reason="there is a GPU")
@pytest.mark.parametrize(("precision", "state"), [("bfloat16", "bad"), ("auto", "note"), ("float32", "ok")])
def test_half_precision_needs_a_gpu_and_float32_does_not(params: Params, precision: str, state: str) -> None:
    assert gpu(with_overrides(params.active, {"checkpoints.precision": precision})).state == state


def test_the_disk_has_to_hold_outputs_and_checkpoints(params: Params, here: Path) -> None:
    for name in ("models", "prompts", "protocols"):
        (here / name).symlink_to(ROOT / name)
    assert "about 3 for outputs, 0 for checkpoints" in disk(params.worlds["miniature"]).message
    finding = disk(params.worlds["sdxl"])
    assert "about 78 for outputs" in finding.message, "pictures, features and evaluation, in runs and in DVC's cache"
    assert "20 for checkpoints" in finding.message and "generate.people" in finding.mend


def test_a_database_has_to_answer_and_its_password_is_not_shown() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}/optuna"
        uri = f"postgresql+psycopg://me:secret@{address}"
        closed = database(uri)
        listening.listen()
        assert closed.state == "bad" and "secret" not in str(closed) and "--storage" in closed.mend
        assert database(uri) == ("ok", f"postgresql+psycopg://me:***@{address}", "")


def test_a_broken_tracking_store_stops_nothing(params: Params) -> None:
    assert tracking(params).state == "ok"
    Path("state/mlflow.db").write_text("no database " * 200)
    assert tracking(params).state == "note"


def test_the_command_prints_a_table_what_to_do_and_fails(params: Params) -> None:
    done = CliRunner().invoke(cli.app, ["doctor", "--world", "sdxl"])
    assert done.exit_code == 1
    table, _, advice = done.output.partition("What to do:")
    assert " BAD  checkpoints.base " in table and " ok   disk" in table.replace("BAD  disk", "ok   disk")
    assert advice.count("`lookahead fetch --world sdxl`") == 1
