"""The parts of the world `sdxl`: what each comes from, what is missing, one error for all of it."""

import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lookahead import cli, world
from lookahead.config import read_params, with_overrides
from lookahead.errors import InputError
from lookahead.world.hub import downloads, find, part, parts
from lookahead.world.published import SHA256
from tests.modules import ROOT
from tests.tiny import LORA_FILE

COMMIT = "462165984030d82259a11f4367a4eed129e94a7b"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a/b", ("repository", "a/b", None, None)),
        (f"a/b@{COMMIT}", ("repository", "a/b", COMMIT, None)),
        (f"a-b/c.d_1@{COMMIT}:fp16", ("repository", "a-b/c.d_1", COMMIT, "fp16")),
        ("a/b:fp16", ("repository", "a/b", None, "fp16")),
        *((name, ("folder", name, None, None)) for name in ("a/b@main", "a/b/c", "ViT-L-14", "src/nothing")),
    ],
)
def test_a_source_names_repository_commit_and_variant(source, expected, sdxl, monkeypatch):
    monkeypatch.chdir(ROOT)
    found = part("base", sdxl.model_copy(update={"base": source}))
    assert (found.kind, found.source, found.revision, found.variant) == expected


def test_every_part_of_sdxl_is_pinned(sdxl):
    found = {each.name: each for each in parts(sdxl) if each.kind == "repository"}
    assert len(found) == 8 and all(each.revision for each in found.values())
    assert found["scorer"].source == "timm/vit_large_patch14_clip_224.openai"
    assert found["base"].variant == found["generator.pipeline"].variant == "fp16"
    assert set(found["base"].replaced) - set(found["generator.pipeline"].replaced) == {"vae"}
    assert found["adapter"].files == ("sdxl_models/ip-adapter-plus-face_sdxl_vit-h.safetensors",)
    image_encoder = ("models/image_encoder/config.json", "models/image_encoder/model.safetensors")
    assert found["image_encoder"].files == image_encoder


def test_one_error_names_all_that_is_missing_how_to_get_it_and_the_way_back(sdxl, home):
    with pytest.raises(InputError) as caught:
        world.require(sdxl, "sdxl")
    message = str(caught.value)
    assert message.startswith("11 parts of this world have not been downloaded, 20 GB:")
    assert "image_encoder: h94/IP-Adapter, 2.5 GB" in message and "adapter: h94/IP-Adapter, 0.85 GB" in message
    assert all(f"checkpoints.{each.name}: {each.source}" in message for each in parts(sdxl))
    assert "`lookahead fetch --world sdxl`" in message and "`world: miniature`" in message


def test_parts_that_are_the_same_files_are_named_once(home):
    sd15 = read_params(ROOT / "params.yaml").worlds["sd15"].checkpoints
    with pytest.raises(InputError, match=r"^10 parts of this world have not been downloaded, 7\.7 GB") as caught:
        world.require(sd15, "sd15")
    message = str(caught.value)
    assert "checkpoints.base, generator.pipeline: stable-diffusion-v1-5/stable-diffusion-v1-5, 2.1 GB" in message
    assert message.count("lcm-lora-sdv1-5") == 1
    whole = {each.name: each for each in downloads(sd15)}["base, generator.pipeline"]
    assert "vae" not in whole.replaced, "the generator opens the VAE that the base's pipeline is without"


def test_pictures_need_neither_the_generator_nor_the_scorer(tiny_world, sdxl, home):
    row = {"generator": sdxl.generator, "scorer": sdxl.scorer}
    checkpoints = tiny_world.model_copy(update=row)
    world.require(checkpoints, "sdxl", world.PICTURES)
    with pytest.raises(InputError, match="2 parts"):
        world.require(checkpoints, "sdxl")


@pytest.mark.parametrize("command", ["personalize me.jpg --prompt x --out out", "demo", "fetch --verify"])
def test_a_command_that_lacks_parts_names_all_of_them(command, home, monkeypatch):
    monkeypatch.chdir(ROOT)
    error = CliRunner().invoke(cli.app, [*command.split(), "--world", "sdxl"]).exception
    assert isinstance(error, InputError) and str(error).startswith("11 parts of this world")


OPENING = (world.open_pipeline, world.open_generator, world.open_image_encoder, world.open_preview_vae)


@pytest.mark.parametrize("opening", [*OPENING, world.open_scorer])
def test_every_loader_gives_that_error(opening, sdxl, home):
    with pytest.raises(InputError, match=r"11 parts of this world (.|\n)*`lookahead fetch --world sdxl`"):
        opening(sdxl)


@pytest.mark.parametrize("stage", ["generate", "photos", "features", "train", "evaluate"])
def test_every_stage_ends_with_that_error_before_it_reads_anything(stage, home, monkeypatch):
    """As `dvc exp run -S world=sdxl` starts it; nothing else has run in that world."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [f"stages/{stage}.py", "--world", "sdxl"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(f"stages/{stage}.py", run_name="__main__")
    assert str(caught.value.code).startswith("error: 11 parts of this world have not been downloaded")
    assert not (ROOT / "runs" / "sdxl" / stage).exists()


def test_another_commit_of_a_repository_does_not_count_and_a_truncated_file_is_named(sdxl, home, tiny_world):
    found = part("fast_child", sdxl)
    for commit, missing in (("b" * 40, True), (found.revision, False)):
        path = home / "hub" / f"models--{found.source.replace('/', '--')}" / "snapshots" / str(commit) / LORA_FILE
        path.parent.mkdir(parents=True)
        path.write_bytes(b"\x10")
        assert bool(found.missing()) is missing
    pipe = world.open_pipeline(tiny_world)
    with pytest.raises(InputError, match=r"truncated .*`lookahead fetch --world sdxl` replaces it") as caught:
        world.attach_fast_child(pipe, tiny_world.model_copy(update={"fast_child": sdxl.fast_child}))
    assert str(path) in str(caught.value)


def test_a_safety_checker_is_downloaded_only_where_a_world_names_one(sdxl, home):
    source = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    named = with_overrides(sdxl, {"safety_checker": f"{source}@{'0' * 40}:fp16"})
    assert "safety_checker" not in {found.name for found in downloads(sdxl)}
    (found,) = [found for found in downloads(named) if found.name == "safety_checker"]
    assert "safety_checker/model.fp16.safetensors" in found.files and found.size == 0.61


def test_a_world_of_folders_misses_nothing(tiny_world):
    assert {each.kind for each in parts(tiny_world)} == {"folder"}
    world.require(tiny_world)
    assert find("base", tiny_world) == (tiny_world.base, None)


@pytest.mark.parametrize("folder", ["antelopev2", "antelopev2/antelopev2"])
def test_a_pack_by_name_is_found_when_it_is_whole_and_its_files_are_those_that_were_published(
    folder, sdxl, home, tiny_world, monkeypatch
):
    found = part("faces.select", sdxl)
    assert found.kind == "pack" and found.missing()
    with pytest.raises(InputError, match=r"antelopev2 is not downloaded: run `lookahead fetch --world sd15`"):
        world.open_faces("antelopev2", 64)
    path, source = home / ".insightface/models" / folder, Path(tiny_world.faces.select)
    path.mkdir(parents=True)
    shutil.copy(source / "recogniser.onnx", path / "glintr100.onnx")
    assert found.missing(), "it has no detector"
    shutil.copy(source / "detector.onnx", path / "scrfd_10g_bnkps.onnx")
    assert not found.missing() and found.folder() == path
    for name in ("glintr100.onnx", "scrfd_10g_bnkps.onnx"):
        with pytest.raises(InputError, match=rf"{name} differs from its SHA-256: `lookahead fetch --world sdxl`"):
            found.check(world="sdxl")
        monkeypatch.delitem(SHA256, f"antelopev2/{name}")
    found.check()
    (path / "genderage.onnx").write_bytes(b"not opened by the loss, but by insightface")
    with pytest.raises(InputError, match=r"genderage\.onnx is truncated or damaged"):
        found.check()


def test_a_pack_may_be_a_repository_of_which_detector_and_recogniser_are_downloaded(sdxl, home):
    row = re.search(r"# report: (\S+)", (ROOT / "params.yaml").read_text()).group(1)
    found = part("faces.report", with_overrides(sdxl, {"faces.report": row}))
    assert (found.kind, found.source, found.size) == ("repository", "fal/AuraFace-v1", 0.28)
    assert set(found.files) == {"glintr100.onnx", "scrfd_10g_bnkps.onnx"} and len(found.revision) == 40
