"""The doctor: a finding for everything a world needs, and what to do about what is bad."""

import socket
from pathlib import Path

import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from lookahead import cli
from lookahead.config import Checkpoints, Params, read_params
from lookahead.doctor import Finding, examine
from lookahead.doctor.catalogue import KNOWN, gigabytes, licence
from lookahead.doctor.checkpoints import checkpoints
from lookahead.doctor.machine import disk, machine, outputs
from lookahead.doctor.servers import answers, servers, shown
from lookahead.errors import InputError
from lookahead.world import device
from lookahead.world.hub import parts
from tests.modules import ROOT


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The committed parameters, an empty home folder and an empty cache; tracking in a new store."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return read_params(ROOT / "params.yaml")


def bad(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings if finding.state == "bad"}


def test_every_part_of_sdxl_is_bad_with_size_licence_and_command(params: Params) -> None:
    found = bad(list(checkpoints(params.worlds["sdxl"].checkpoints, "sdxl")))
    assert len(found) == 11
    assert all("`lookahead fetch --world sdxl`" in finding.mend for finding in found.values())
    assert "NON-COMMERCIAL" in found["checkpoints.faces.loss"].message
    assert (
        "RAIL++" in found["checkpoints.base"].message and "missing, about 6.8 GB" in found["checkpoints.base"].message
    )


def test_what_may_not_be_used_commercially_is_summed_up(params: Params) -> None:
    *_, last = checkpoints(params.worlds["sdxl"].checkpoints, "sdxl")
    assert last.subject == "licences" and last.state == "odd"
    assert all(name in last.message for name in ("buffalo_l", "buffalo_s", "antelopev2", "stabilityai/sdxl-turbo"))


def test_the_catalogue_knows_every_part_of_sdxl(params: Params) -> None:
    named = {part.source for part in parts(params.worlds["sdxl"].checkpoints)}
    assert named == set(KNOWN)
    assert 19 < gigabytes(named) < 23
    assert "read its page" in licence("somebody/something")


def test_a_world_of_folders_is_well(tiny_world: Checkpoints) -> None:
    found = list(checkpoints(tiny_world, "tiny"))
    assert not bad(found) and len(found) == 11 and "licences" not in {finding.subject for finding in found}


def test_a_truncated_part_and_a_damaged_pack_are_bad(own_world: Checkpoints) -> None:
    for name in ("lcm_lora/pytorch_lora_weights.safetensors", "faces/models/report/recogniser.onnx"):
        path = Path(own_world.base).parent / name
        path.write_bytes(path.read_bytes()[:500])
    found = bad(list(checkpoints(own_world, "tiny")))
    assert set(found) == {"checkpoints.fast_child", "checkpoints.generator.lora", "checkpoints.faces.report"}
    assert "truncated" in found["checkpoints.fast_child"].mend


@pytest.mark.skipif(device().type == "cuda", reason="there is a GPU")
def test_half_precision_needs_a_gpu_and_float32_does_not(params: Params) -> None:
    assert set(bad(list(machine(params.worlds["sdxl"])))) == {"GPU"}
    assert not bad(list(machine(params.worlds["miniature"])))


def test_the_disk_is_asked_for_pictures_and_checkpoints(params: Params, tmp_path: Path) -> None:
    sdxl = params.worlds["sdxl"]
    assert outputs(params.worlds["miniature"]) == 3 and outputs(sdxl) > 1000
    finding = disk(sdxl, tmp_path)
    assert "20 for checkpoints" in finding.message and "generate.people" in finding.mend


def test_a_server_that_is_named_has_to_answer(params: Params) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        uri = f"postgresql+psycopg://me:secret@127.0.0.1:{port}/optuna"
        assert "does not answer" in answers(uri)
        listening.listen()
        assert answers(uri) == ""
    assert shown(uri) == f"postgresql+psycopg://me:***@127.0.0.1:{port}/optuna"
    remote = params.tracking.model_copy(update={"uri": f"http://127.0.0.1:{port}"})
    found = bad(list(servers(params.model_copy(update={"tracking": remote}), uri)))
    assert set(found) == {"tracking", "search storage"} and "tracking.uri" in found["tracking"].mend
    assert "secret" not in str(found)


def test_without_a_storage_none_is_looked_for(params: Params) -> None:
    off = params.model_copy(update={"tracking": params.tracking.model_copy(update={"enabled": False})})
    assert [finding.subject for finding in servers(off, None)] == ["tracking"]


def test_an_unknown_world_is_an_error(params: Params) -> None:
    with pytest.raises(InputError, match="no world 'mars'"):
        next(iter(examine(params, "mars", None)))


def test_the_command_prints_a_table_what_to_do_and_fails(
    params: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.app, ["doctor", "--world", "sdxl"])
    assert done.exit_code == 1
    table, _, advice = done.output.partition("What to do:")
    assert " BAD  checkpoints.base " in table and "  ok  machine" in table
    assert advice.count("`lookahead fetch --world sdxl`") == 1 and "clone the repository" in advice
