"""Features of a dataset that nobody drew: the right files and shapes, random contents, for the tiny world."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

from lookahead.config import Checkpoints, Train, merged, read_params
from lookahead.models.recogniser import TEMPLATE
from lookahead.training.networks import Backend, Training, open_training
from tests.modules import ROOT
from tests.tiny_faces import EMBEDDING

PEOPLE, PICTURES, PROMPTS = 4, 5, 3  # three of a person's pictures are photos
ROWS = PEOPLE * PICTURES


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the stage `features` writes it."""
    folder, generator = tmp_path_factory.mktemp("features"), torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    faces = torch.tensor(TEMPLATE) * 0.35 + torch.tensor([14.0, 10.0])  # in the middle of 64 pixels
    photo = torch.arange(ROWS) % PICTURES < 3
    embeddings, image = (draw(PEOPLE, *shape).repeat_interleave(PICTURES, 0) for shape in ((EMBEDDING,), (17, 32)))
    images = {"embeddings": torch.nn.functional.normalize(embeddings, dim=1), "latents": draw(ROWS, 4, 16, 16)}
    images |= {"image_features": (image + 0.1 * draw(ROWS, 17, 32))[photo], "landmarks": faces + draw(ROWS, 5, 2)}
    (folder / "images").mkdir()
    save_file(images, folder / "images" / "00000.safetensors")
    prompts = {"prompt_embeds": draw(PROMPTS, 16, 96), "pooled": draw(PROMPTS, 64)}
    prompts |= {"empty_prompt_embeds": torch.zeros(1, 16, 96), "empty_pooled": torch.zeros(1, 64)}
    save_file(prompts | {"null_image_features": draw(1, 17, 32)}, folder / "prompts.safetensors")
    rows = pd.DataFrame({"row": range(ROWS), "index": range(ROWS), "photo": photo.numpy()})
    rows["style"] = rows.photo.map({True: "photo", False: "comic"})
    rows = rows.assign(identity=rows.row // PICTURES, prompt=rows.row % PROMPTS, scene="snow", own=False)
    rows.to_parquet(folder / "table.parquet", index=False)
    return folder


@pytest.fixture(scope="session")
def settings() -> Train:
    """Six steps of two micro-batches of two pairs, else as the miniature."""
    own = {"steps": 6, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-3, "lr_warmup_steps": 2}
    own |= {"image_dropout": 0.3, "text_dropout": 0.2, "lookahead": {"weight": 1.0, "lora_scale": {"redraw_every": 3}}}
    own |= {"kv": {"rank": 2, "shared_rank": 3, "token_dropout": 0.25, "learning_rate": 5e-4}}
    own |= {"checkpoint_every": 2, "checkpoints_total_limit": 2, "sample_every": 3, "num_samples": 2}
    own |= {"sample_num_inference_steps": 2, "sample_guidance_scale": 2.0}
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
