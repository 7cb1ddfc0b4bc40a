"""The world `sdxl` on paper and in the hub's cache: what it needs, what is missing, one error for all of it."""

import runpy
import sys
from pathlib import Path

import pytest
from huggingface_hub import constants

from lookahead import world
from lookahead.config import Checkpoints, read_params
from lookahead.errors import InputError
from lookahead.world.hub import LORA_FILE, Part, cached, hub_parts, missing, place
from lookahead.world.packs import named_pack, pack_folder
from lookahead.world.sources import HubSource, hub_source
from tests.modules import ROOT

COMMIT = "462165984030d82259a11f4367a4eed129e94a7b"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder and an empty cache of the hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="module")
def sdxl() -> Checkpoints:
    return read_params(ROOT / "params.yaml").worlds["sdxl"].checkpoints


def put(cache: Path, part: Part, file: str, content: bytes = b"x") -> Path:
    """Lay a file down where the hub's cache keeps it."""
    name = "models--" + part.source.repository.replace("/", "--")
    path = cache / name / "snapshots" / (part.source.revision or "a" * 40) / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if part.source.revision is None:
        (cache / name / "refs").mkdir(exist_ok=True)
        (cache / name / "refs" / "main").write_text("a" * 40)
    return path


@pytest.mark.parametrize(
    ("source", "is_"),
    [
        ("a/b", HubSource("a/b", None, None)),
        (f"a/b@{COMMIT}", HubSource("a/b", COMMIT, None)),
        (f"a-b/c.d_1@{COMMIT}:fp16", HubSource("a-b/c.d_1", COMMIT, "fp16")),
        ("a/b:fp16", HubSource("a/b", None, "fp16")),
        ("a/b@main", None),
        ("a/b/c", None),
        ("ViT-L-14", None),
        ("src/nothing", None),
    ],
)
def test_a_source_names_repository_commit_and_variant(source: str, is_: HubSource | None) -> None:
    assert hub_source(source) == is_


def test_every_part_of_sdxl_is_pinned_but_the_scorer_which_a_tag_of_open_clip_names(sdxl: Checkpoints) -> None:
    parts = {part.name: part.source for part in hub_parts(sdxl)}
    assert len(parts) == 8
    assert {name for name, source in parts.items() if source.revision is None} == {"scorer"}
    assert parts["base"].variant == parts["generator.pipeline"].variant == "fp16"


def test_what_a_part_needs_holds_no_pickles_and_no_weights_twice(sdxl: Checkpoints) -> None:
    files = {part.name: part.files for part in hub_parts(sdxl)}
    assert all(Path(file).suffix in (".json", ".txt", ".safetensors") for part in files.values() for file in part)
    assert "unet/diffusion_pytorch_model.fp16.safetensors" in files["base"]
    assert not any(file.startswith("vae/") for file in files["base"])  # another VAE takes its place
    assert "vae/diffusion_pytorch_model.fp16.safetensors" in files["generator.pipeline"]
    assert files["adapter"] == ("sdxl_models/ip-adapter-plus-face_sdxl_vit-h.safetensors",)
    assert files["image_encoder"] == ("models/image_encoder/config.json", "models/image_encoder/model.safetensors")


def test_one_error_names_all_that_is_missing_how_to_get_it_and_the_way_back(sdxl: Checkpoints, home: Path) -> None:
    with pytest.raises(InputError) as caught:
        world.require(sdxl, "sdxl")
    said = str(caught.value)
    assert said.startswith("11 parts of this world")
    for name in (
        "base",
        "vae",
        "preview_vae",
        "fast_child",
        "generator.pipeline",
        "adapter",
        "image_encoder",
        "scorer",
    ):
        assert f"checkpoints.{name}: " in said
    assert all(f"checkpoints.faces.{role}: " in said for role in ("loss", "select", "report"))
    assert "`lookahead fetch --world sdxl`" in said and "`world: miniature`" in said


@pytest.mark.parametrize(
    "opening",
    [world.open_pipeline, world.open_generator, world.open_image_encoder, world.open_preview_vae, world.open_scorer],
)
def test_every_loader_gives_that_error(sdxl: Checkpoints, home: Path, opening) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="11 parts of this world have not been downloaded"):
        opening(sdxl)


@pytest.mark.parametrize("stage", ["generate", "photos", "features", "train", "evaluate"])
def test_every_stage_ends_with_that_error_before_it_reads_anything(
    stage: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `dvc exp run -S world=sdxl` starts it; nothing else has run in that world."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", [f"stages/{stage}.py", "--world", "sdxl"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(f"stages/{stage}.py", run_name="__main__")
    assert str(caught.value.code).startswith("error: 11 parts of this world have not been downloaded")
    assert not (ROOT / "runs" / "sdxl" / stage).exists()


def test_nothing_is_missing_where_everything_lies_in_the_caches(sdxl: Checkpoints, home: Path) -> None:
    for part in hub_parts(sdxl):
        for file in part.files:
            put(home / "hub", part, file)
    for pack in ("buffalo_l", "buffalo_s"):
        (home / ".insightface/models" / pack).mkdir(parents=True)
        (home / ".insightface/models" / pack / "rec.onnx").touch()
    nested = home / ".insightface/models/antelopev2/antelopev2"
    nested.mkdir(parents=True)
    assert missing(sdxl) == ["checkpoints.faces.select: the face pack antelopev2"]
    (nested / "rec.onnx").touch()
    assert pack_folder("antelopev2") == nested
    world.require(sdxl)


def test_a_pack_that_is_not_here_says_how_to_get_it(home: Path) -> None:
    assert named_pack("buffalo_l") is None
    with pytest.raises(InputError, match=r"buffalo_l is not here: `lookahead fetch`"):
        world.open_faces("buffalo_l", 64)


def test_another_commit_of_a_repository_does_not_count(sdxl: Checkpoints, home: Path) -> None:
    part = next(part for part in hub_parts(sdxl) if part.name == "fast_child")
    other = Part(part.name, HubSource(part.source.repository, "b" * 40, None), part.files)
    put(home / "hub", other, LORA_FILE)
    assert cached(other.source, LORA_FILE) is not None and part.missing() == [LORA_FILE]


def test_a_truncated_file_of_the_cache_is_named(sdxl: Checkpoints, home: Path) -> None:
    part = next(part for part in hub_parts(sdxl) if part.name == "fast_child")
    path = put(home / "hub", part, LORA_FILE, b"\x10")
    with pytest.raises(InputError, match="truncated") as caught:
        place("fast_child", sdxl)
    assert str(path) in str(caught.value)


def test_a_world_of_folders_misses_nothing(tiny_world: Checkpoints) -> None:
    assert hub_parts(tiny_world) == [] and missing(tiny_world) == []
    assert place("base", tiny_world) == (tiny_world.base, None)
