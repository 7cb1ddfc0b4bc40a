"""Opens the networks of a world but its face packs, and attaches the fast child and the image adapter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from logging import Handler, LogRecord, getLogger
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, AutoPipelineForText2Image, DiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import retrieve_latents
from diffusers.utils import logging
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lookahead.config import Checkpoints, Lora
from lookahead.errors import InputError
from lookahead.world.distributed import device, dtype, frozen
from lookahead.world.hub import UNUSED, find, opening, part
from lookahead.world.published import scorer_weights

FAST_CHILD = "fast_child"
Pipeline = Any  # StableDiffusionXLPipeline or StableDiffusionPipeline, which get their modules when they run
SCHEDULERS = (  # of diffusers, those that our sampling loop drives (each is tested)
    *("DDIMScheduler", "DDPMScheduler", "DEISMultistepScheduler", "DPMSolverMultistepScheduler"),
    *("DPMSolverSinglestepScheduler", "EulerAncestralDiscreteScheduler", "EulerDiscreteScheduler"),
    *("HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler", "LCMScheduler"),
    *("LMSDiscreteScheduler", "PNDMScheduler", "SASolverScheduler", "TCDScheduler", "UniPCMultistepScheduler"),
)
_SLICED = 256  # pixels a side, from which a VAE takes pictures one by one: of smaller ones many fit, and are faster
_ENCODERS = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Hold back diffusers' warnings of what is intended or of no effect.

    Intended are a LoRA without text encoders and an adapter without image encoder. When an adapter is loaded, diffusers
    warns of an empty list of modules that should stay in float32; of an AutoencoderTiny, of a value that it always
    writes into its configuration itself.
    """
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


@contextmanager
def _no_weights_from_chance() -> Iterator[None]:
    """Refuse a checkpoint that lacks weights: transformers draws them at random, with no more than a warning."""
    lacking: list[str] = []

    class Listener(Handler):
        def emit(self, record: LogRecord) -> None:
            lacking.extend(re.findall(r"^(\S+) *\| *MISSING", record.getMessage(), re.MULTILINE))

    listener, logger = Listener(), getLogger("transformers")
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
    if lacking:
        raise ValueError(f"it lacks {', '.join(lacking)}")


def _open(kind: Any, label: str, name: str, checkpoints: Checkpoints, **options: Any) -> Any:
    """A model or pipeline of diffusers or transformers, frozen, with `options` of its `from_pretrained`."""
    folder, variant = find(name, checkpoints)
    options = {"dtype": dtype(checkpoints)} | options
    with opening(label, folder), _no_weights_from_chance():
        opened = kind.from_pretrained(folder, variant=variant, use_safetensors=True, local_files_only=True, **options)
        for module in getattr(opened, "components", {label: opened}).values():
            if isinstance(module, nn.Module):
                frozen(module)
        return opened


def _open_pipeline(label: str, name: str, checkpoints: Checkpoints, replaced: dict[str, Any]) -> Pipeline:
    """A text-to-image pipeline for pictures of the world's resolution, some of its modules `replaced`, None by nothing.

    Stable Diffusion 1.5 has one text encoder and a safety checker, which is not opened; XL has two, and a watermark.
    """
    folder, _ = find(name, checkpoints)
    with opening(label, folder):
        has = DiffusionPipeline.load_config(folder, local_files_only=True)
    options = {key: module for key, module in {**dict.fromkeys(UNUSED), **replaced}.items() if key in has}
    options |= {"add_watermarker": False} if "text_encoder_2" in has else {"requires_safety_checker": False}
    pipe = _open(AutoPipelineForText2Image, label, name, checkpoints, **options)
    if "vae" in pipe.components and pipe.vae is not None:
        _slice(pipe.vae, checkpoints)
    pipe.set_progress_bar_config(disable=True)
    _set_resolution(pipe, checkpoints)
    return pipe


def _set_resolution(pipe: Pipeline, checkpoints: Checkpoints) -> None:
    """Let a pipeline, which may lack its VAE, draw at the world's resolution."""
    name, subfolder = ("base", "vae") if checkpoints.vae is None else ("vae", None)
    folder, _ = find(name, checkpoints)
    with opening("VAE", folder):
        blocks = AutoencoderKL.load_config(folder, subfolder=subfolder, local_files_only=True)["block_out_channels"]
    factor = 2 ** (len(blocks) - 1)
    if checkpoints.resolution % factor:
        raise InputError(f"checkpoints.resolution is {checkpoints.resolution}: choose a multiple of {factor}")
    pipe.vae_scale_factor = factor
    pipe.unet.register_to_config(sample_size=checkpoints.resolution // factor)


def _slice(vae: Any, checkpoints: Checkpoints) -> Any:
    """Let a VAE take pictures one by one, where they are large: it needs gigabytes for each."""
    if max(checkpoints.resolution, checkpoints.generator.resolution) >= _SLICED:
        vae.enable_slicing()
    return vae


def open_pipeline(checkpoints: Checkpoints) -> Pipeline:
    """Open the base model with its VAE, frozen, without adapters."""
    vae = {} if checkpoints.vae is None else {"vae": _open(AutoencoderKL, "VAE", "vae", checkpoints)}
    return _open_pipeline("base model", "base", checkpoints, vae)


def open_denoiser(checkpoints: Checkpoints) -> Pipeline:
    """The base model's U-Net and scheduler as a pipeline without VAE and text encoders: training has their outputs."""
    return _open_pipeline("base model", "base", checkpoints, dict.fromkeys(_ENCODERS))


def open_generator(checkpoints: Checkpoints) -> Pipeline:
    """Open the few-step generator with its LoRA fused and its scheduler set."""
    pipe = _open_pipeline("few-step generator", "generator.pipeline", checkpoints, {})
    lora = checkpoints.generator.lora
    if lora is not None:
        _load_lora(pipe, find("generator.lora", checkpoints)[0], lora, "generator")
        pipe.fuse_lora(adapter_names=["generator"])
        pipe.unload_lora_weights()
    pipe.scheduler = scheduler_class(checkpoints.generator.scheduler).from_config(pipe.scheduler.config)
    return pipe


def scheduler_class(name: str) -> Any:
    """The scheduler class of diffusers with this name."""
    if name not in SCHEDULERS:
        raise InputError(f"{name!r} is no scheduler that can be used: choose one of {', '.join(SCHEDULERS)}")
    return getattr(diffusers, name)


def encode_prompts(
    pipe: Pipeline, prompts: Sequence[str], negative_prompt: str | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens (B, L, C) of prompts and of the unconditional or negative one, then pooled text (B, E) of both.

    E is 0 where the base takes no pooled text, as Stable Diffusion 1.5 does.
    """
    negative = None if negative_prompt is None else [negative_prompt] * len(prompts)
    encoded = pipe.encode_prompt(
        list(prompts),
        device=device(),
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        negative_prompt=negative,
    )
    tokens, free, *pooled = encoded
    none = tokens.new_zeros(len(tokens), 0)
    return tokens, free, *(pooled or (none, none))


def _load_lora(pipe: Pipeline, folder: str, lora: Lora, name: str) -> None:
    with opening("LoRA", folder), _without_warnings():
        pipe.load_lora_weights(folder, weight_name=lora.weight_name, adapter_name=name, local_files_only=True)
        frozen(pipe.unet)  # fails where weights are missing


def attach_fast_child(pipe: Pipeline, checkpoints: Checkpoints) -> None:
    """Put the fast child on the U-Net as adapter "fast_child", frozen and at scale 0, so that the U-Net is the base."""
    _load_lora(pipe, find("fast_child", checkpoints)[0], checkpoints.fast_child, FAST_CHILD)
    pipe.unet.set_adapters(FAST_CHILD, 0.0)
    frozen(pipe.unet)


def detach_fast_child(pipe: Pipeline) -> None:
    """Take the LCM-LoRA off the U-Net, whose layers are the base's own again."""
    pipe.unet.unload_lora()


def attach_adapter(pipe: Pipeline, source: str | Path | Checkpoints) -> None:
    """Load an IP-Adapter file, or the world's untuned one: image projection and attention processors."""
    if isinstance(source, Checkpoints):
        source = Path(find("adapter", source)[0], source.adapter.subfolder, source.adapter.weight_name)
    path = Path(source)
    if path.suffix != ".safetensors":
        raise InputError(f"the adapter {path} is no .safetensors file: pickled weights are not opened")
    if not path.is_file():
        raise InputError(f"{path} does not exist: an adapter file was expected there")
    with opening("image adapter", str(path)), _without_warnings():
        pipe.load_ip_adapter(str(path.parent), subfolder="", weight_name=path.name, image_encoder_folder=None)
    frozen(pipe.unet)


def detach_adapter(pipe: Pipeline) -> None:
    """Make the U-Net the plain base again, without image adapter and with its own attention processors.

    diffusers' `unload_ip_adapter` would try to copy processors that it does not know.
    """
    pipe.unet.encoder_hid_proj = None
    pipe.unet.config.encoder_hid_dim_type = None
    pipe.unet.set_attn_processor(AttnProcessor2_0())


def open_preview_vae(checkpoints: Checkpoints) -> Any:
    """Open the preview decoder, in float32 because Eq. 3 is computed in it."""
    with _without_warnings():
        vae = _open(AutoencoderTiny, "preview decoder", "preview_vae", checkpoints, dtype=torch.float32)
    return _slice(vae, checkpoints)


def open_image_encoder(checkpoints: Checkpoints) -> tuple[CLIPVisionModelWithProjection, CLIPImageProcessor]:
    """Open the CLIP vision encoder of the adapter, and the processor that diffusers makes for its size."""
    subfolder = checkpoints.image_encoder.subfolder
    model = _open(CLIPVisionModelWithProjection, "image encoder", "image_encoder", checkpoints, subfolder=subfolder)
    size = model.config.image_size
    processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    return model, processor


def open_safety_checker(checkpoints: Checkpoints) -> tuple[StableDiffusionSafetyChecker, CLIPImageProcessor]:
    """Open Stable Diffusion's checker of pictures, where the world has one, and its processor."""
    folder, _ = find("safety_checker", checkpoints)
    options: dict[str, Any] = {"subfolder": "safety_checker"}
    checker = _open(StableDiffusionSafetyChecker, "safety checker", "safety_checker", checkpoints, **options)
    with opening("safety checker", folder):
        return checker, CLIPImageProcessor.from_pretrained(folder, subfolder="feature_extractor", local_files_only=True)


@dataclass(frozen=True)
class Scorer:
    """The text-image scorer: `preprocess` takes a PIL image, `tokenizer` a list of texts."""

    model: nn.Module
    preprocess: Callable[[Any], Tensor]
    tokenizer: Callable[[list[str]], Tensor]


def open_scorer(checkpoints: Checkpoints) -> Scorer:
    """Open the text-image scorer with open_clip, published weights by their path and compared with their SHA-256."""
    import open_clip  # only here: training runs without it

    scorer, options = checkpoints.scorer, {}
    folder, _ = find("scorer", checkpoints)
    if scorer.pretrained is not None:
        found, (settings, _) = part("scorer", checkpoints), scorer_weights(scorer)
        assert found is not None
        found.check(contents=True)
        options = {"image_" + name: settings.get(name) for name in ("mean", "std", "interpolation", "resize_mode")}
        options["pretrained"] = str(Path(folder, *found.files))
    with opening("text-image scorer", folder):
        model, preprocess = open_clip.create_model_from_pretrained(scorer.model, device=device(), **options)
        return Scorer(frozen(model), preprocess, open_clip.get_tokenizer(scorer.model))


def _statistics(vae: Any, latents: Tensor) -> tuple[Tensor, Tensor] | None:
    """Mean and deviation (1, C, 1, 1) of a VAE's latents, where its configuration has them."""
    mean, std = (getattr(vae.config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is None or std is None:
        return None
    return latents.new_tensor(mean).view(1, -1, 1, 1), latents.new_tensor(std).view(1, -1, 1, 1)


@torch.no_grad()
def encode_latents(vae: Any, pixels: Tensor) -> Tensor:
    """Scaled latents (B, C, h, w) of pixels (B, 3, H, W) in [-1, 1]: the mean of the VAE's posterior."""
    latents: Tensor = retrieve_latents(vae.encode(pixels.to(vae.device, vae.dtype)), sample_mode="argmax")
    if statistics := _statistics(vae, latents):
        latents = (latents - statistics[0]) / statistics[1]
    scaled: Tensor = latents * vae.config.scaling_factor
    return scaled


def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Pixels (B, 3, H, W), about in [-1, 1], of scaled latents (B, C, h, w); the inverse of `encode_latents`."""
    latents = latents / vae.config.scaling_factor
    if statistics := _statistics(vae, latents):
        latents = latents * statistics[1] + statistics[0]
    pixels: Tensor = vae.decode(latents).sample
    return pixels


def to_uint8(pixels: Tensor) -> NDArray[np.uint8]:
    """Pictures (B, H, W, 3) of pixels (B, 3, H, W) in [-1, 1]; what lies outside is clamped."""
    rounded = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte()
    return np.ascontiguousarray(rounded.permute(0, 2, 3, 1).cpu().numpy())
