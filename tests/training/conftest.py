"""Features of a dataset that nobody drew: the right files and shapes, random contents, for the tiny world."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from lookahead.config import Checkpoints, Train, merged, read_params
from lookahead.models.recogniser import TEMPLATE
from lookahead.training.networks import Backend, Training, open_training
from tests.modules import ROOT
from tests.tiny_faces import EMBEDDING

PEOPLE, PICTURES, PROMPTS = 4, 5, 3
PHOTO = [row % PICTURES < 3 for row in range(PEOPLE * PICTURES)]


def image_tensors(generator: torch.Generator) -> dict[str, torch.Tensor]:
    count = PEOPLE * PICTURES
    faces = torch.tensor(TEMPLATE) * 0.35 + torch.tensor([14.0, 10.0])  # in the middle of 64 pixels
    embeddings = torch.randn(PEOPLE, EMBEDDING, generator=generator).repeat_interleave(PICTURES, 0)
    features = torch.randn(PEOPLE, 17, 32, generator=generator).repeat_interleave(PICTURES, 0)
    return {
        "latents": torch.randn(count, 4, 16, 16, generator=generator),
        "image_features": (features + 0.1 * torch.randn(count, 17, 32, generator=generator))[PHOTO],
        "embeddings": torch.nn.functional.normalize(embeddings, dim=1),
        "landmarks": faces + torch.randn(count, 5, 2, generator=generator),
    }


def prompt_tensors(generator: torch.Generator) -> dict[str, torch.Tensor]:
    return {
        "prompt_embeds": torch.randn(PROMPTS, 16, 96, generator=generator),
        "pooled": torch.randn(PROMPTS, 64, generator=generator),
        "empty_prompt_embeds": torch.zeros(1, 16, 96),
        "empty_pooled": torch.zeros(1, 64),
        "null_image_features": torch.randn(1, 17, 32, generator=generator),
    }


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the stage `features` writes it."""
    folder, generator = tmp_path_factory.mktemp("features"), torch.Generator().manual_seed(0)
    (folder / "images").mkdir()
    save_file(image_tensors(generator), folder / "images" / "00000.safetensors")
    save_file(prompt_tensors(generator), folder / "prompts.safetensors")
    rows = range(PEOPLE * PICTURES)
    columns = {
        "row": list(rows),
        "index": list(rows),
        "identity": [row // PICTURES for row in rows],
        "style": ["photo" if photo else "comic" for photo in PHOTO],
        "scene": ["snow" for _ in rows],
        "prompt": [row % PROMPTS for row in rows],
        "photo": PHOTO,
        "own": [False for _ in rows],
    }
    pq.write_table(pa.table(columns), folder / "table.parquet")
    return folder


@pytest.fixture(scope="session")
def settings() -> Train:
    """Six steps of two micro-batches of two pairs, else as the miniature."""
    own = {
        "steps": 6,
        "batch_size": 2,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-3,
        "lr_warmup_steps": 2,
        "image_dropout": 0.3,
        "text_dropout": 0.2,
        "lookahead": {"weight": 1.0, "lora_scale": {"redraw_every": 3}},
        "kv": {"rank": 2, "shared_rank": 3, "token_dropout": 0.25, "learning_rate": 5e-4},
        "checkpoint_every": 2,
        "checkpoints_total_limit": 2,
        "sample_every": 3,
        "num_samples": 2,
        "sample_num_inference_steps": 2,
        "sample_guidance_scale": 2.0,
    }
    return changed(read_params(ROOT / "params.yaml").worlds["miniature"].train, own)


@pytest.fixture(scope="session")
def with_kv(settings: Train) -> Train:
    """The same with the KV-encoder."""
    return changed(settings, {"kv": {"enabled": True}})


@pytest.fixture(scope="session")
def opened(tiny_world: Checkpoints, settings: Train, features: Path) -> Callable[..., Training]:
    """Opens a training of these settings with changes; named words change the checkpoints."""

    def open_changed(changes: Mapping[str, object], backend: Backend = "inductor", **world: object) -> Training:
        return open_training(tiny_world.model_copy(update=world), changed(settings, changes), features, backend)

    return open_changed


def changed(settings: Train, changes: Mapping[str, object]) -> Train:
    """The settings with some values changed, nested as they are, and checked again."""
    return Train.model_validate(merged(settings.model_dump(), changes))
