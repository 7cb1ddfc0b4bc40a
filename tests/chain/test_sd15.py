"""The whole chain, and pictures of a person, with a Stable Diffusion 1.5 as base: one text encoder, no pooled text."""

from pathlib import Path

import pytest
from diffusers import StableDiffusionPipeline
from PIL import Image

from lookahead.artifacts import read_json
from lookahead.config import Checkpoints, read_params
from lookahead.pipeline import LookaheadPipeline
from lookahead.pipeline.pipeline import export
from tests.chain.conftest import run_script
from tests.project import STAGES, WORLD, build_project, save_tree, tree_of


@pytest.fixture(scope="module")
def project(tiny_sd15: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with the KV-encoder."""
    root = build_project(tmp_path_factory.mktemp("project"), tiny_sd15)
    tree = tree_of(tiny_sd15)
    tree["worlds"][WORLD]["train"]["kv"]["enabled"] = True
    save_tree(root, tree)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for stage in STAGES:
            assert run_script(stage) == ""
    return root


def test_it_trains_both_encoders_and_evaluates_them(project: Path) -> None:
    runs = project / "runs" / WORLD
    assert {path.name for path in (runs / "train" / "lookahead" / "encoder").iterdir()} >= {
        "ip-adapter.safetensors",
        "kv.safetensors",
    }
    assert read_json(runs / "evaluate" / "metrics.json")["identity"] <= 1


def test_it_draws_steers_and_exports_for_stock_diffusers(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    world = read_params().worlds[WORLD]
    pipe = LookaheadPipeline(world.checkpoints, world.personalize, Path("runs", WORLD, "train", "lookahead", "encoder"))
    portrait = Image.open(project / "models" / WORLD / "portraits" / "test" / "000" / "0.jpg")
    assert pipe.has_kv and isinstance(pipe.base, StableDiffusionPipeline)
    slow, fast = (pipe(portrait, "a photo of a person", num_inference_steps=2, fast=fast)[0] for fast in (False, True))
    assert slow.size == fast.size == (64, 64) and slow.tobytes() != fast.tobytes()
    export(pipe, Path("exported"), None)
    again = LookaheadPipeline.from_pretrained("exported")
    assert again(portrait, "a photo of a person", num_inference_steps=2)[0].tobytes() == slow.tobytes()
    assert "StableDiffusionPipeline.from_pretrained" in Path("exported", "README.md").read_text(encoding="utf-8")
