"""The parts of the world `sdxl`: what each comes from, what is missing, one error for all of it."""

import runpy
import sys

import pytest

from lookahead import world
from lookahead.errors import InputError
from lookahead.world import hub
from lookahead.world.hub import find, part, parts
from tests.modules import ROOT
from tests.tiny import LORA_FILE

COMMIT = "462165984030d82259a11f4367a4eed129e94a7b"
PACK = b"a detector"


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


def test_every_part_of_sdxl_is_pinned_but_the_scorer_which_a_tag_of_open_clip_names(sdxl):
    found = {each.name: each for each in parts(sdxl) if each.kind == "repository"}
    assert len(found) == 8
    assert {name for name, each in found.items() if each.revision is None} == {"scorer"}
    assert found["base"].variant == found["generator.pipeline"].variant == "fp16"
    assert set(found["base"].replaced) - set(found["generator.pipeline"].replaced) == {"vae"}
    assert found["adapter"].files == ("sdxl_models/ip-adapter-plus-face_sdxl_vit-h.safetensors",)
    image_encoder = ("models/image_encoder/config.json", "models/image_encoder/model.safetensors")
    assert found["image_encoder"].files == image_encoder


def test_one_error_names_all_that_is_missing_how_to_get_it_and_the_way_back(sdxl, home):
    with pytest.raises(InputError) as caught:
        world.require(sdxl, "sdxl")
    message = str(caught.value)
    assert message.startswith("11 parts of this world")
    assert all(f"checkpoints.{each.name}: {each.source}" in message for each in parts(sdxl))
    assert "`lookahead fetch --world sdxl`" in message and "`world: miniature`" in message


OPENING = (world.open_pipeline, world.open_generator, world.open_image_encoder, world.open_preview_vae)


@pytest.mark.parametrize("opening", [*OPENING, world.open_scorer])
def test_every_loader_gives_that_error(opening, sdxl, home):
    with pytest.raises(InputError, match="11 parts of this world have not been downloaded"):
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
    with pytest.raises(InputError, match="truncated") as caught:
        world.attach_fast_child(pipe, tiny_world.model_copy(update={"fast_child": sdxl.fast_child}))
    assert str(path) in str(caught.value)


def test_a_world_of_folders_misses_nothing(tiny_world):
    assert {each.kind for each in parts(tiny_world)} == {"folder"}
    world.require(tiny_world)
    assert find("base", tiny_world) == (tiny_world.base, None)


@pytest.mark.parametrize("folder", ["antelopev2", "antelopev2/antelopev2"])
def test_a_pack_by_name_is_found_and_its_files_are_those_that_were_published(folder, sdxl, home, monkeypatch):
    found = part("faces.select", sdxl)
    assert found.kind == "pack" and found.missing()
    with pytest.raises(InputError, match=r"antelopev2 is not downloaded: run `lookahead fetch`"):
        world.open_faces("antelopev2", 64)
    path = home / ".insightface/models" / folder / "glintr100.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(PACK)
    assert not found.missing() and found.folder() == path.parent
    with pytest.raises(InputError, match=r"glintr100\.onnx differs from its SHA-256"):
        found.check()
    monkeypatch.delitem(hub.PACK_DIGESTS, "antelopev2/glintr100.onnx")
    found.check()
