"""The inputs that pictures are drawn from: text, image tokens and, with the KV-encoder, the reference itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lookahead.world import Pipeline, decode_latents, device, encode_latents, encode_prompts


class _Samples:
    """Tensors with a row a sample."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Every tensor changed alike."""
        return type(self)(*(change(v) if isinstance(v, Tensor) else v.map(change) for v in vars(self).values()))


@dataclass(frozen=True)
class Prompt(_Samples):
    """Embedded prompts: text tokens (B, L, C) and pooled text (B, E)."""

    tokens: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Condition(_Samples):
    """The conditioning of each sample: the prompt, and image features (B, S, D)."""

    prompt: Prompt
    image: Tensor


@dataclass(frozen=True)
class Reference(_Samples):
    """The KV-encoder's input of each sample: the reference's latents (B, C, h, w) and its own prompt."""

    latents: Tensor
    prompt: Prompt


@torch.no_grad()
def embed_prompts(
    pipe: Pipeline, prompts: Sequence[str], negative_prompt: str | None = None, batch_size: int = 64
) -> tuple[Prompt, Prompt]:
    """Each prompt, and the unconditional or negative one (1, ...), as diffusers embeds them, in batches."""
    batches = (prompts[start : start + batch_size] for start in range(0, len(prompts), batch_size))
    parts = [encode_prompts(pipe, batch, negative_prompt) for batch in batches]
    text, free, pooled, free_pooled = zip(*parts, strict=True)
    return Prompt(torch.cat(text), torch.cat(pooled)), Prompt(free[0][:1], free_pooled[0][:1])


@torch.no_grad()
def encode_photos(
    encoder: CLIPVisionModelWithProjection,
    processor: CLIPImageProcessor,
    photos: Sequence[Image.Image],
    batch_size: int = 64,
) -> tuple[Tensor, Tensor]:
    """Image features (N, S, D) of photos, and (1, S, D) of no photo: of zeros, as IP-Adapter-plus is trained."""
    pixels = processor(images=list(photos), return_tensors="pt").pixel_values
    batches = torch.cat([pixels, torch.zeros_like(pixels[:1])]).split(batch_size)
    hidden = (encoder(each.to(encoder.device, encoder.dtype), output_hidden_states=True) for each in batches)
    features = torch.cat([each.hidden_states[-2] for each in hidden])
    return features[:-1], features[-1:]


def reference_pixels(pipe: Pipeline, photos: Sequence[Image.Image]) -> Tensor:
    """Pixels (N, 3, H, W) in [-1, 1] of photos, cropped to their central square, at the base's resolution."""
    side = pipe.unet.config.sample_size * pipe.vae_scale_factor
    pixels: Tensor = pipe.image_processor.preprocess(list(photos), height=side, width=side, resize_mode="crop")
    return pixels


def reference_latents(pipe: Pipeline, photos: Sequence[Image.Image], batch_size: int = 4) -> Tensor:
    """Latents (N, C, h, w) of photos, cropped to their central square, at the base's resolution."""
    batches = (photos[start : start + batch_size] for start in range(0, len(photos), batch_size))
    return torch.cat([encode_latents(pipe.vae, reference_pixels(pipe, batch)) for batch in batches])


@torch.no_grad()
def rebuilt_psnr(pipe: Pipeline, photos: Sequence[Image.Image]) -> Tensor:
    """How well the autoencoder rebuilds photos, cropped to their central square: decibels (N,)."""
    pixels = reference_pixels(pipe, photos).to(device())
    rebuilt = decode_latents(pipe.vae, encode_latents(pipe.vae, pixels)).float().clamp(-1, 1)
    return -10 * ((pixels - rebuilt) / 2).square().mean((1, 2, 3)).log10()
