"""Drawing pictures with classifier-free guidance: the sampler's loop, over batches that show many people at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lookahead.config import Evaluate
from lookahead.method.guidance import classifier_free
from lookahead.world import Pipeline, device, scheduler_class


@dataclass(frozen=True)
class Condition:
    """What the U-Net is told about each sample: text tokens (B, L, C), pooled text (B, P), image features (B, S, D)."""

    text: Tensor
    pooled: Tensor
    image: Tensor


@torch.no_grad()
def encode_prompts(pipe: Pipeline, prompts: list[str]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Text tokens and pooled text of each prompt, then of the unconditional one, as the pipeline makes them."""
    text, free_text, pooled, free_pooled = pipe.encode_prompt(
        prompts, device=device(), num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    return text, pooled, free_text[:1], free_pooled[:1]


@torch.no_grad()
def encode_photos(
    encoder: CLIPVisionModelWithProjection, processor: CLIPImageProcessor, photos: list[Image.Image]
) -> tuple[Tensor, Tensor]:
    """Image features (N, S, D) of photos, and (1, S, D) of no photo: of zeros, as IP-Adapter-plus is trained."""
    pixels = processor(images=photos, return_tensors="pt").pixel_values.to(encoder.device, encoder.dtype)
    with_none = torch.cat([pixels, torch.zeros_like(pixels[:1])])
    features = encoder(with_none, output_hidden_states=True).hidden_states[-2]
    return features[:-1], features[-1:]


def prepare(pipe: Pipeline, settings: Evaluate) -> None:
    """Set the sampler and the adapter's strength of a pipeline that has an image adapter.

    Raises:
        InputError: diffusers has no such sampler.
    """
    pipe.scheduler = scheduler_class(settings.sampler).from_config(pipe.scheduler.config)
    pipe.set_ip_adapter_scale(settings.adapter_scale)


@torch.no_grad()
def draw(pipe: Pipeline, given: Condition, free: Condition, seeds: list[int], settings: Evaluate) -> Tensor:
    """Draw one picture a sample: pixels (B, 3, H, W) in [-1, 1].

    diffusers' own call takes one reference a batch only; for that case both give the same picture (tested).

    Args:
        pipe: a prepared pipeline.
        given: the samples' conditions.
        free: the unconditional ones, with the same batch size.
        seeds: of each sample's noise, so that a picture does not depend on its batch.
        settings: steps and guidance.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    pipe.scheduler.set_timesteps(settings.steps, device=device())
    latents = _noise(pipe, generators) * pipe.scheduler.init_noise_sigma  # (B, 4, h, w)
    both = Condition(*(torch.cat(pair) for pair in zip(_parts(free), _parts(given), strict=True)))  # (2B, ...)
    random = pipe.prepare_extra_step_kwargs(generators, 0.0)  # only samplers that draw noise take generators
    for t in pipe.scheduler.timesteps:
        seen = pipe.scheduler.scale_model_input(torch.cat([latents, latents]), t)
        without, with_ = _predict(pipe, seen, t, both).chunk(2)
        prediction = classifier_free(without, with_, settings.guidance)
        latents = pipe.scheduler.step(prediction, t, latents, **random).prev_sample
    decoded: Tensor = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
    return decoded.float().clamp(-1, 1)


def _parts(condition: Condition) -> tuple[Tensor, Tensor, Tensor]:
    return condition.text, condition.pooled, condition.image


def _noise(pipe: Pipeline, generators: list[torch.Generator]) -> Tensor:
    side = pipe.unet.config.sample_size
    shape = (1, pipe.unet.config.in_channels, side, side)
    noise = [torch.randn(shape, generator=generator, dtype=pipe.unet.dtype) for generator in generators]
    return torch.cat(noise).to(device())


def _predict(pipe: Pipeline, latents: Tensor, t: Tensor, condition: Condition) -> Tensor:
    pixels = pipe.unet.config.sample_size * pipe.vae_scale_factor
    size = torch.tensor([pixels, pixels, 0, 0, pixels, pixels], dtype=latents.dtype, device=latents.device)
    added = {
        "text_embeds": condition.pooled,
        "time_ids": size.expand(len(latents), -1),
        "image_embeds": [condition.image.unsqueeze(1)],
    }
    prediction: Tensor = pipe.unet(latents, t, encoder_hidden_states=condition.text, added_cond_kwargs=added).sample
    return prediction
