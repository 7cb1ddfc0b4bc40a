"""What pictures are drawn from: text, image tokens and, with the KV-encoder, the reference itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lookahead.world import Pipeline, device, encode_latents


@dataclass(frozen=True)
class Prompt:
    """Embedded prompts: text tokens (B, L, C) and pooled text (B, P)."""

    tokens: Tensor
    pooled: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Prompt:
        """Both tensors changed alike."""
        return Prompt(change(self.tokens), change(self.pooled))


@dataclass(frozen=True)
class Condition:
    """What the U-Net is told about each sample: the prompt and image features (B, S, D)."""

    prompt: Prompt
    image: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Condition:
        """Every tensor changed alike."""
        return Condition(self.prompt.map(change), change(self.image))


@dataclass(frozen=True)
class Reference:
    """What the KV-encoder sees of each sample: the reference's latents (B, C, h, w) and its own prompt."""

    latents: Tensor
    prompt: Prompt

    def map(self, change: Callable[[Tensor], Tensor]) -> Reference:
        """Every tensor changed alike."""
        return Reference(change(self.latents), self.prompt.map(change))


@torch.no_grad()
def embed_prompts(pipe: Pipeline, prompts: list[str]) -> tuple[Prompt, Prompt]:
    """Each prompt, and the unconditional one (1, ...), as the pipeline makes them."""
    text, free_text, pooled, free_pooled = pipe.encode_prompt(
        prompts, device=device(), num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    return Prompt(text, pooled), Prompt(free_text[:1], free_pooled[:1])


@torch.no_grad()
def encode_photos(
    encoder: CLIPVisionModelWithProjection, processor: CLIPImageProcessor, photos: list[Image.Image]
) -> tuple[Tensor, Tensor]:
    """Image features (N, S, D) of photos, and (1, S, D) of no photo: of zeros, as IP-Adapter-plus is trained."""
    pixels = processor(images=photos, return_tensors="pt").pixel_values.to(encoder.device, encoder.dtype)
    with_none = torch.cat([pixels, torch.zeros_like(pixels[:1])])
    features = encoder(with_none, output_hidden_states=True).hidden_states[-2]
    return features[:-1], features[-1:]


def reference_pixels(pipe: Pipeline, photos: list[Image.Image]) -> Tensor:
    """Pixels (N, 3, H, W) in [-1, 1] of photos, their middle square at the base's resolution."""
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    pixels: Tensor = pipe.image_processor.preprocess(photos, height=side, width=side, resize_mode="crop")
    return pixels


def reference_latents(pipe: Pipeline, photos: list[Image.Image]) -> Tensor:
    """Latents (N, C, h, w) of photos, their middle square at the base's resolution."""
    return encode_latents(pipe.vae, reference_pixels(pipe, photos))
