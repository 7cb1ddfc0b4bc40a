"""The doctor: a finding for everything a world needs, and what to do about what is bad."""

import socket
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from lookahead import cli
from lookahead.config import Checkpoints, Params, read_params, with_overrides
from lookahead.doctor import KNOWN, Finding, checkpoints, database, disk, machine, tracking
from lookahead.world import device
from lookahead.world.hub import parts


@pytest.fixture
def params(here: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The committed parameters, an empty home and an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "hub"))
    monkeypatch.setenv("HOME", str(here))
    return read_params()


def bad(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings if finding.state == "bad"}


def test_every_part_of_a_world_of_the_hub_is_bad_with_size_licence_and_command(params: Params) -> None:
    *found, last = checkpoints(params.worlds["sdxl"].checkpoints, "sdxl")
    assert len(bad(found)) == len(found) == len(parts(params.worlds["sdxl"].checkpoints))
    assert all("`lookahead fetch --world sdxl`" in finding.mend for finding in found)
    base = bad(found)["checkpoints.base"].message
    assert "RAIL++" in base and "missing, 6.8 GB" in base
    assert last.subject == "licences" and last.state == "note"
    assert all(name in last.message for name in ("buffalo_l", "buffalo_s", "antelopev2", "stabilityai/sdxl-turbo"))
    worlds = (params.worlds[name].checkpoints for name in ("sd15", "sdxl", "sdxl_paper"))
    assert {part.source for world in worlds for part in parts(world)} == set(KNOWN)


def test_a_world_of_folders_is_well_and_a_damaged_part_is_bad(own_world: Checkpoints) -> None:
    found = list(checkpoints(own_world, "tiny"))
    assert not bad(found) and "licences" not in {finding.subject for finding in found}
    for name in ("lcm_lora/pytorch_lora_weights.safetensors", "faces/models/report/recogniser.onnx"):
        path = Path(own_world.base).parent / name
        path.write_bytes(path.read_bytes()[:500])
    damaged = bad(list(checkpoints(own_world, "tiny")))
    assert set(damaged) == {"checkpoints.fast_child", "checkpoints.generator.lora", "checkpoints.faces.report"}
    assert "truncated" in damaged["checkpoints.fast_child"].mend


@pytest.mark.skipif(device().type == "cuda", reason="there is a GPU")
def test_half_precision_needs_a_gpu_and_float32_does_not(params: Params) -> None:
    for precision, state in (("bfloat16", "bad"), ("auto", "note"), ("float32", "ok")):
        found = machine(with_overrides(params.active, {"checkpoints.precision": precision}))
        assert {finding.subject: finding.state for finding in found}["GPU"] == state


def test_the_disk_has_to_hold_pictures_and_checkpoints(params: Params) -> None:
    assert "about 3 for outputs, 0 for checkpoints" in disk(params.worlds["miniature"]).message
    finding = disk(params.worlds["sdxl"])
    assert "20 for checkpoints" in finding.message and "generate.people" in finding.mend


def test_a_database_has_to_answer_and_its_password_is_not_shown() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listening.getsockname()[1]}/optuna"
        uri = f"postgresql+psycopg://me:secret@{address}"
        closed = database(uri)
        listening.listen()
        assert closed.state == "bad" and "secret" not in str(closed) and "--storage" in closed.mend
        assert database(uri) == ("ok", "search storage", f"postgresql+psycopg://me:***@{address}", "")


def test_a_broken_tracking_store_stops_nothing(params: Params) -> None:
    assert tracking(params).state == "ok"
    Path("state/mlflow.db").write_text("no database " * 200)
    assert tracking(params).state == "note"


def test_the_command_prints_a_table_what_to_do_and_fails(params: Params) -> None:
    done = CliRunner().invoke(cli.app, ["doctor", "--world", "sdxl"])
    assert done.exit_code == 1
    table, _, advice = done.output.partition("What to do:")
    assert " BAD  checkpoints.base " in table and " ok   disk" in table.replace("BAD  disk", "ok   disk")
    assert advice.count("`lookahead fetch --world sdxl`") == 1 and "clone the repository" in advice
