"""The pipeline against stock diffusers, its round trip, what each option changes, attention to the reference."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, LCMScheduler, StableDiffusionXLPipeline
from diffusers.models.attention_processor import Attention
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPImageProcessor

from lookahead.config import KVGuidance, with_overrides
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.pipeline import LookaheadPipeline
from lookahead.pipeline.attention_maps import draw_with_attention, reference_attention
from lookahead.pipeline.pipeline import CARD
from lookahead.world import open_image_encoder
from lookahead.world.diffusion import SCHEDULERS

PROMPT = "a photo of a person in the snow"
OTHER = "a comic drawing of a person on the beach"


def differ(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of a grey value."""
    return int(abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


@pytest.fixture
def stock(tiny_world, exported) -> Any:
    """An untouched pipeline of diffusers with the exported file."""
    encoder, processor = open_image_encoder(tiny_world)
    theirs: Any = StableDiffusionXLPipeline.from_pretrained(
        tiny_world.base, image_encoder=encoder, feature_extractor=processor, add_watermarker=False
    )
    theirs.load_ip_adapter(str(exported), subfolder="", weight_name=ADAPTER_FILE, image_encoder_folder=None)
    theirs.set_ip_adapter_scale(0.7)
    theirs.set_progress_bar_config(disable=True)
    return theirs


def draw_stock(stock: Any, scheduler: Any, photo: Image.Image, steps: int, **words: Any) -> Image.Image:
    stock.scheduler = scheduler.from_config(stock.scheduler.config)
    generator = torch.Generator().manual_seed(5)
    return stock(PROMPT, ip_adapter_image=photo, num_inference_steps=steps, generator=generator, **words).images[0]


def test_stock_diffusers_draws_the_same_from_the_exported_file(pipe, stock, photos, settings):
    words = {"negative_prompt": "a comic drawing", "guidance_scale": 2.5}
    ours = pipe(photos[0], PROMPT, seed=5, kv=False, adapter_scale=0.7, **words)[0]
    steps = settings.num_inference_steps
    assert differ(ours, draw_stock(stock, DPMSolverMultistepScheduler, photos[0], steps, **words)) <= 1


def test_the_fast_child_is_the_stock_lora_with_the_lcm_scheduler(pipe, stock, photos, tiny_world, settings):
    ours = pipe(photos[0], PROMPT, seed=5, fast=True, kv=False, adapter_scale=0.7)[0]
    stock.load_lora_weights(tiny_world.fast_child.source, weight_name="pytorch_lora_weights.safetensors")
    steps = settings.fast.num_inference_steps
    assert differ(ours, draw_stock(stock, LCMScheduler, photos[0], steps, guidance_scale=1.0)) <= 1


def test_a_lora_for_a_few_timesteps_is_drawn_with_at_these(tiny_world, settings, photos, tmp_path):
    """As Hyper-SD and SDXL-Lightning: kohya's names, DDIM, timesteps that end at the last one."""
    written = load_file(Path(tiny_world.fast_child.source, tiny_world.fast_child.weight_name))
    named = {
        f"lora_unet_{module.removeprefix('unet.').replace('.', '_')}.{half}": tensor
        for name, tensor in written.items()
        for module, half in [re.fullmatch(r"(.+)\.(lora.*)", name).groups()]
    }
    named = {name.replace("lora_A", "lora_down").replace("lora_B", "lora_up"): named[name] for name in named}
    alphas = {re.sub("lora_down.weight$", "alpha", name): torch.tensor(4.0) for name in named if "lora_down" in name}
    save_file(named | alphas, tmp_path / "four.safetensors")
    few = {"source": str(tmp_path), "weight_name": "four.safetensors", "timesteps": [249, 499, 749, 999]}
    settings = with_overrides(settings, {"fast.num_inference_steps": 4, "fast.scheduler": "DDIMScheduler"})
    pictures, seen = {}, {"few": [], "all": []}
    for name, child in {"few": few, "all": few | {"timesteps": None}}.items():
        pipe = LookaheadPipeline(with_overrides(tiny_world, {"fast_child": child}), settings, None)
        note = lambda step, t, latents, ts=seen[name]: ts.append(int(t))  # noqa: E731
        pictures[name] = pipe(photos[0], PROMPT, fast=True, callback=note)[0]
    assert seen["few"] == [999, 749, 499, 249] != seen["all"]
    assert differ(pictures["few"], pictures["all"]) > 1
    plain = LookaheadPipeline(tiny_world, settings, None)
    assert differ(pictures["all"], plain(photos[0], PROMPT, fast=True)[0]) <= 1, "kohya's names are the same weights"


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_scheduler_that_may_be_chosen_draws_and_again_the_same(scheduler, pipe, photos):
    drawn = [pipe(photos[0], PROMPT, kv=False, scheduler=scheduler, num_inference_steps=4, seed=1)[0] for _ in "12"]
    assert drawn[0].tobytes() == drawn[1].tobytes() and np.asarray(drawn[0]).std() > 1


@pytest.mark.parametrize(("threshold", "black"), [(-1.0, True), (1.0, False)])
def test_the_safety_checker_blackens_what_it_flags(threshold, black, tiny_world, settings, photos, tmp_path):
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(vision_config=tower | {"image_size": 32, "patch_size": 16}, projection_dim=8)
    checker = StableDiffusionSafetyChecker(config)
    checker.concept_embeds_weights.data.fill_(threshold)  # of the cosine, which is 0 here
    checker.special_care_embeds_weights.data.fill_(1.0)
    for embeddings in (checker.concept_embeds, checker.special_care_embeds):
        embeddings.data.zero_()
    checker.save_pretrained(tmp_path / "safety_checker")
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**size).save_pretrained(tmp_path / "feature_extractor")
    checked = tiny_world.model_copy(update={"safety_checker": str(tmp_path)})
    drawn = LookaheadPipeline(checked, settings, None)(photos[0], PROMPT)[0]
    plain = LookaheadPipeline(tiny_world, settings, None)(photos[0], PROMPT)[0]
    assert bool(np.asarray(drawn).max() == 0) is black
    assert black or differ(drawn, plain) == 0


def test_it_comes_back_bit_for_bit(pipe, exported, photos, tmp_path):
    again = LookaheadPipeline.from_pretrained(exported)
    again.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {path.name for path in exported.iterdir()} - {CARD}
    assert all((tmp_path / name).read_bytes() == (exported / name).read_bytes() for name in names)
    assert differ(again(photos[0], PROMPT)[0], pipe(photos[0], PROMPT)[0]) == 0


def test_the_untuned_adapter_is_saved_as_it_was_opened(tiny_world, settings, tmp_path, photos):
    untuned = LookaheadPipeline(tiny_world, settings, None)
    assert not untuned.has_kv
    untuned.save_pretrained(tmp_path)
    again = LookaheadPipeline.from_pretrained(tmp_path)
    assert differ(again(photos[0], PROMPT)[0], untuned(photos[0], PROMPT)[0]) == 0


def test_a_call_leaves_nothing_behind(pipe, photos):
    before = pipe(photos[0], PROMPT)[0]
    pipe(photos[1], OTHER, fast=True, adapter_scale=0.1, steering=0.2)
    pipe(photos[1], OTHER, scheduler="EulerAncestralDiscreteScheduler", kv=False)
    assert differ(pipe(photos[0], PROMPT)[0], before) == 0


def test_prompts_by_images_in_order_and_batches_do_not_matter(tiny_world, pipe, encoder, photos):
    narrow = LookaheadPipeline(tiny_world, with_overrides(pipe.settings, {"batch_size": 3}), encoder)
    seen: list[tuple[int, int]] = []

    def look(step: int, _t: int, latents: torch.Tensor) -> None:
        seen.append((step, len(latents)))

    drawn = narrow(photos[0], [PROMPT, OTHER], seed=7, num_images_per_prompt=2, callback=look)
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
def test_every_option_changes_the_picture(change, pipe, photos):
    assert differ(pipe(photos[0], PROMPT, **change)[0], pipe(photos[0], PROMPT)[0]) > 1


def test_several_portraits_of_one_person(pipe, photos):
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
        ({"scheduler": "FlowMatchEulerDiscreteScheduler"}, "choose one of DDIMScheduler, "),
        ({"num_inference_steps": 1001}, "num_inference_steps is 1001: not possible with DPMSolverMultistepScheduler"),
        ({"num_inference_steps": 1001, "fast": True}, "num_inference_steps is 1001: not possible with LCMScheduler"),
        ({"seed": -1}, "the seed is -1: choose one from 0 to"),
        ({"seed": 2**63, "num_images_per_prompt": 2}, "the seed is 9223372036854775808"),
        ({"guidance_scale": math.inf, "kv": False}, "guidance_scale: Input should be a finite number"),
        ({"adapter_scale": math.inf}, "adapter_scale: Input should be a finite number"),
        ({"guidance_scale": 3e38, "kv": False}, "not finite: lower guidance or scale"),
        ({"negative_prompt": "a \udcff person"}, "is not valid text: write it in UTF-8"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"adapter_scale": -1.0}, "adapter_scale"),
        ({"combine": "mix"}, "'mix'"),
        ({"num_images_per_prompt": 0}, "0 images"),
    ],
)
def test_a_wish_that_cannot_be_is_one_message(change, said, pipe, photos):
    with pytest.raises(InputError, match=said):
        pipe(photos[0], PROMPT, **change)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(InputError, match=r"lookahead\.json"):
        LookaheadPipeline.from_pretrained(tmp_path)


def test_a_reference_equal_to_the_target_gets_half_of_each_positions_attention():
    torch.manual_seed(0)
    attn = Attention(query_dim=32, heads=4, dim_head=8)
    hidden = torch.randn(2, 9, 32)
    with torch.no_grad():
        seen = reference_attention(attn, hidden, attn.to_k(hidden))
        alone = attn.get_attention_scores(*(attn.head_to_batch_dim(p(hidden)) for p in (attn.to_q, attn.to_k)))
    assert torch.allclose(seen.sum(1), torch.full((9,), 0.5), atol=1e-6)
    assert torch.allclose(seen, alone.mean(0) / 2, atol=1e-6)


def test_every_self_attention_layer_has_a_map_of_its_portrait_and_the_picture_stays(pipe, photos):
    picture, maps = draw_with_attention(pipe, photos[0], PROMPT, seed=3)
    layers = [name for name, _ in pipe.base.unet.named_modules() if name.endswith(".attn1")]
    assert set(maps) == set(layers) and layers
    for seen in maps.values():
        shares = seen.sum(1)
        assert seen.shape[0] == seen.shape[1] and shares.min() > 0 and shares.max() < 1
    assert differ(pipe(photos[0], PROMPT, seed=3, kv=True)[0], picture) == 0
    other = draw_with_attention(pipe, photos[1], PROMPT, seed=3)[1]
    assert any(not torch.allclose(maps[name], other[name]) for name in maps)


def test_an_encoder_without_maps_is_refused(pipe, photos):
    with pytest.raises(InputError, match="no KV-encoder"):
        draw_with_attention(LookaheadPipeline(pipe.checkpoints, pipe.settings, None), photos[0], PROMPT, seed=0)
