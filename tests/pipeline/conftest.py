"""A tiny pipeline with a KV-encoder that has an effect, and portraits for it."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from lookahead.config import Checkpoints, Personalize, World, read_params, with_overrides
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.models.kv_encoder import KV_FILE, KVEncoder, new_kv_encoder, save_kv_encoder
from lookahead.pipeline import LookaheadPipeline
from lookahead.pipeline.pipeline import export
from lookahead.world import open_pipeline
from tests.modules import ROOT
from tests.tiny import build_portraits, with_bright_previews


def moved(kv: KVEncoder) -> KVEncoder:
    """The encoder with LoRAs that are not zero."""
    generator = torch.Generator().manual_seed(0)
    for weight in kv.parameters().values():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    return kv


@pytest.fixture(scope="package")
def settings() -> Personalize:
    """The miniature's, with few steps."""
    settings = read_params(ROOT / "params.yaml").worlds["miniature"].personalize
    return with_overrides(settings, {"num_inference_steps": 2, "fast.num_inference_steps": 2})


@pytest.fixture(scope="package")
def world(tiny_world: Checkpoints, settings: Personalize) -> World:
    committed = read_params(ROOT / "params.yaml").worlds["miniature"]
    return committed.model_copy(update={"checkpoints": tiny_world, "personalize": settings})


@pytest.fixture(scope="package")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Of three people."""
    folder = build_portraits(tmp_path_factory.mktemp("portraits"), 3)
    return [folder / f"{i:03d}" / "0.jpg" for i in range(3)]


@pytest.fixture(scope="package")
def photos(portraits: list[Path]) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in portraits]


@pytest.fixture(scope="package")
def encoder(tiny_world: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as training writes it: the adapter, and a KV-encoder whose LoRAs are not zero."""
    folder = tmp_path_factory.mktemp("encoder")
    (folder / ADAPTER_FILE).write_bytes(Path(tiny_world.adapter.source, tiny_world.adapter.weight_name).read_bytes())
    save_kv_encoder(folder / KV_FILE, moved(new_kv_encoder(open_pipeline(tiny_world).unet, 2, 2, seed=0)))
    return folder


@pytest.fixture(scope="package")
def pipe(tiny_world, settings, encoder, tmp_path_factory) -> LookaheadPipeline:
    bright = with_bright_previews(tiny_world, tmp_path_factory.mktemp("bright"))
    return LookaheadPipeline(bright, settings, encoder)


@pytest.fixture(scope="package")
def exported(pipe: LookaheadPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(pipe, folder, None)
    return folder
