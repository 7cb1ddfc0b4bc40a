"""The pipeline against stock diffusers, its round trip, and what each of its options changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, LCMScheduler, StableDiffusionXLPipeline
from PIL import Image

from lookahead.config import Checkpoints, KVGuidance, Personalize, with_overrides
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.pipeline import LookaheadPipeline
from lookahead.pipeline.pipeline import CARD
from lookahead.world import open_image_encoder

PROMPT = "a photo of a person in the snow"
OTHER = "a comic drawing of a person on the beach"


def array(picture: Image.Image) -> Any:
    return np.asarray(picture).astype(int)


def differ(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of a grey value."""
    return int(abs(array(one) - array(other)).max())


@pytest.fixture
def stock(tiny_world: Checkpoints, exported: Path) -> Any:
    """An untouched pipeline of diffusers with the exported file."""
    encoder, processor = open_image_encoder(tiny_world)
    theirs: Any = StableDiffusionXLPipeline.from_pretrained(
        tiny_world.base, image_encoder=encoder, feature_extractor=processor, add_watermarker=False
    )
    theirs.load_ip_adapter(str(exported), subfolder="", weight_name=ADAPTER_FILE, image_encoder_folder=None)
    theirs.set_ip_adapter_scale(0.7)
    theirs.set_progress_bar_config(disable=True)
    return theirs


def test_stock_diffusers_draws_the_same_from_the_exported_file(
    pipe: LookaheadPipeline, stock: Any, photos: list[Image.Image], settings: Personalize
) -> None:
    ours = pipe(photos[0], PROMPT, "a comic drawing", seed=5, kv=False, adapter_scale=0.7, guidance_scale=2.5)[0]
    stock.scheduler = DPMSolverMultistepScheduler.from_config(stock.scheduler.config)
    theirs = stock(
        PROMPT,
        negative_prompt="a comic drawing",
        ip_adapter_image=photos[0],
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=2.5,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    assert differ(ours, theirs) <= 1


def test_the_fast_child_is_the_stock_lora_with_the_lcm_scheduler(
    pipe: LookaheadPipeline, stock: Any, photos: list[Image.Image], tiny_world: Checkpoints, settings: Personalize
) -> None:
    ours = pipe(photos[0], PROMPT, seed=5, fast=True, kv=False, adapter_scale=0.7)[0]
    stock.load_lora_weights(tiny_world.fast_child, weight_name="pytorch_lora_weights.safetensors")
    stock.scheduler = LCMScheduler.from_config(stock.scheduler.config)
    theirs = stock(
        PROMPT,
        ip_adapter_image=photos[0],
        num_inference_steps=settings.fast.num_inference_steps,
        guidance_scale=1.0,
        generator=[torch.Generator().manual_seed(5)],
    ).images[0]
    assert differ(ours, theirs) <= 1


def test_it_comes_back_bit_for_bit(
    pipe: LookaheadPipeline, exported: Path, photos: list[Image.Image], tmp_path: Path
) -> None:
    again = LookaheadPipeline.from_pretrained(exported)
    again.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in exported.iterdir()} - {CARD}
    assert all((tmp_path / name).read_bytes() == (exported / name).read_bytes() for name in names)
    assert differ(again(photos[0], PROMPT)[0], pipe(photos[0], PROMPT)[0]) == 0


def test_the_untuned_adapter_is_saved_as_it_was_opened(
    tiny_world: Checkpoints, settings: Personalize, tmp_path: Path, photos: list[Image.Image]
) -> None:
    untuned = LookaheadPipeline(tiny_world, settings, None)
    assert not untuned.has_kv
    untuned.save_pretrained(tmp_path)
    again = LookaheadPipeline.from_pretrained(tmp_path)
    assert differ(again(photos[0], PROMPT)[0], untuned(photos[0], PROMPT)[0]) == 0


def test_a_call_leaves_nothing_behind(pipe: LookaheadPipeline, photos: list[Image.Image]) -> None:
    before = pipe(photos[0], PROMPT)[0]
    pipe(photos[1], OTHER, fast=True, adapter_scale=0.1, steering=0.2)
    pipe(photos[1], OTHER, scheduler="EulerAncestralDiscreteScheduler", kv=False)
    assert differ(pipe(photos[0], PROMPT)[0], before) == 0


def test_prompts_by_images_in_order_and_batches_do_not_matter(
    tiny_world: Checkpoints, pipe: LookaheadPipeline, encoder: Path, photos: list[Image.Image]
) -> None:
    narrow = LookaheadPipeline(tiny_world, with_overrides(pipe.settings, {"batch_size": 3}), encoder)
    seen: list[tuple[int, int]] = []
    drawn = narrow(
        photos[0],
        [PROMPT, OTHER],
        seed=7,
        num_images_per_prompt=2,
        callback=lambda step, t, latents: seen.append((step, len(latents))),
    )
    assert seen == [(0, 3), (1, 3), (0, 1), (1, 1)]
    assert all(differ(drawn[2 + i], pipe(photos[0], OTHER, seed=7 + i)[0]) <= 1 for i in range(2))
    assert differ(drawn[2], drawn[3]) > 3


@pytest.mark.parametrize(
    "change",
    [
        {"kv": False},
        {"kv_guidance": KVGuidance(image=3.0, both=2.0, kv=2.0)},
        {"adapter_scale": 0.2},
        {"scheduler": "EulerDiscreteScheduler"},
        {"num_inference_steps": 3},
        {"fast": True},
        {"steering": 0.3},
        {"seed": 1},
        {"negative_prompt": OTHER},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_option_changes_the_picture(
    change: dict[str, Any], pipe: LookaheadPipeline, photos: list[Image.Image]
) -> None:
    assert differ(pipe(photos[0], PROMPT, **change)[0], pipe(photos[0], PROMPT)[0]) > 1


def test_several_portraits_of_one_person(pipe: LookaheadPipeline, photos: list[Image.Image]) -> None:
    def draw(portraits: list[Image.Image], combine: Any) -> Image.Image:
        return pipe(portraits, PROMPT, kv=False, combine=combine)[0]

    alone = [draw([photo], "average") for photo in photos[:2]]
    assert differ(draw([photos[0]], "concatenate"), alone[0]) == 0
    assert differ(draw([photos[0], photos[0]], "average"), alone[0]) <= 1
    for combine in ("average", "concatenate"):
        both = draw(photos[:2], combine)
        assert all(differ(both, one) > 1 for one in alone)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scheduler": "FastScheduler"}, "FastScheduler"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"adapter_scale": -1.0}, "adapter_scale"),
        ({"combine": "mix"}, "'mix'"),
        ({"num_images_per_prompt": 0}, "0 images"),
    ],
)
def test_a_wish_that_cannot_be_is_one_message(
    change: dict[str, Any], said: str, pipe: LookaheadPipeline, photos: list[Image.Image]
) -> None:
    with pytest.raises(InputError, match=said):
        pipe(photos[0], PROMPT, **change)


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"lookahead\.json"):
        LookaheadPipeline.from_pretrained(tmp_path)
