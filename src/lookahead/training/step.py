"""One micro-batch: the noise loss and the lookahead loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from lookahead.method.diffusion import NoiseSchedule, add_noise, noise_loss, noise_target
from lookahead.method.lookahead import identity_distance
from lookahead.method.preview import lcm_preview
from lookahead.models.alignment import align
from lookahead.models.recogniser import Recogniser
from lookahead.training.draws import NoiseDraw


@dataclass(frozen=True)
class Batch:
    """Pairs of a target and a reference, B of them: everything that the losses need, encoded in advance."""

    latents: Tensor  # (B, C, h, w), target
    landmarks: Tensor  # (B, 5, 2) pixels, target
    prompt_embeds: Tensor  # (B, L, C), target, without the name
    pooled: Tensor  # (B, P), target
    image_features: Tensor  # (B, S, D), reference
    embeddings: Tensor  # (B, E) unit, reference


@dataclass(frozen=True)
class Networks:
    """The networks of one training, opened once; only the image adapter inside the U-Net is trained."""

    unet: UNet2DConditionModel
    child: list[LoraLayer]
    schedule: NoiseSchedule
    preview_vae: AutoencoderTiny
    recogniser: Recogniser
    time_ids: Tensor  # (1, 6): original size, crop, target size, as SDXL is told them
    precision: torch.dtype


def autocast(networks: Networks) -> torch.autocast:
    """Brings the trained weights, float32, together with frozen ones of another format."""
    mixed = networks.precision != torch.float32
    return torch.autocast(networks.time_ids.device.type, networks.precision, enabled=mixed)


def predict(networks: Networks, noisy: Tensor, t: Tensor, batch: Batch, image_features: Tensor) -> Tensor:
    """The U-Net's prediction (B, C, h, w) for noisy latents, prompt and image features (B, S, D)."""
    conditions = {
        "text_embeds": batch.pooled,
        "time_ids": networks.time_ids.expand(len(t), -1),
        "image_embeds": [image_features[:, None]],  # one image a sample, one adapter
    }
    with autocast(networks):
        prediction: Tensor = networks.unet(
            noisy, t, encoder_hidden_states=batch.prompt_embeds, added_cond_kwargs=conditions, return_dict=False
        )[0]
    return prediction.float()


def decode(preview_vae: AutoencoderTiny, latents: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) of scaled latents (B, C, h, w), not clamped: a clamp has no gradient where it acts."""
    pixels: Tensor = preview_vae.decode(latents.float() / preview_vae.config.scaling_factor, return_dict=False)[0]
    return pixels


def noise_pass(networks: Networks, batch: Batch, draw: NoiseDraw, image_features: Tensor) -> Tensor:
    """The noise loss of each pair, (B,), with image features (B, S, D) of which some were dropped (§3)."""
    noisy = add_noise(networks.schedule, batch.latents, draw.noise, draw.t)
    prediction = predict(networks, noisy, draw.t, batch, image_features)
    return noise_loss(prediction, noise_target(networks.schedule, batch.latents, draw.noise, draw.t))


def lookahead_pass(networks: Networks, batch: Batch, draw: NoiseDraw) -> Tensor:
    """The identity distance of each pair's preview to its reference, (B,); the caller sets alpha_LoRA (Eq. 3, Eq. 4).

    The target's landmarks align the preview at every t, so no detector runs and no sample is skipped.
    """
    noisy = add_noise(networks.schedule, batch.latents, draw.noise, draw.t)
    prediction = predict(networks, noisy, draw.t, batch, batch.image_features)
    latents = lcm_preview(networks.schedule, noisy, prediction, draw.t)
    crops = align(decode(networks.preview_vae, latents), batch.landmarks)
    return identity_distance(networks.recogniser(crops), batch.embeddings)
