"""One micro-batch: the noise loss and the lookahead loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from lookahead.config import Preview
from lookahead.method import lookahead, preview
from lookahead.method.attention import KeysValues
from lookahead.method.diffusion import NoiseSchedule, add_noise, noise_loss, noise_target
from lookahead.method.shared_pass import as_leaves, backward_through
from lookahead.models.alignment import align
from lookahead.models.kv_encoder import KVEncoder
from lookahead.models.recogniser import Recogniser
from lookahead.sampling.conditions import Condition
from lookahead.training.batches import Batch
from lookahead.training.draws import NoiseDraw
from lookahead.world import LandmarkDetector, to_device


@dataclass(frozen=True)
class Networks:
    """The networks of one training, opened once; only the image adapter and the KV-encoder's LoRAs are trained."""

    unet: UNet2DConditionModel
    child: list[LoraLayer]
    kv: KVEncoder | None
    bank: KeysValues  # what the denoiser's self-attention appends
    schedule: NoiseSchedule
    preview_vae: AutoencoderTiny
    recogniser: Recogniser
    detector: LandmarkDetector | None
    time_ids: Tensor  # (1, 6): original size, crop, target size, as SDXL is told them
    precision: torch.dtype


def autocast(networks: Networks) -> torch.autocast:
    """Brings float32 weights, the trained ones and those behind a preview, together with frozen ones of half precision.

    Decoding and recognising in bfloat16 turn the lookahead loss's gradient by less than 10 degrees
    (tests/training/test_precision.py).
    """
    mixed = networks.precision != torch.float32
    return torch.autocast(networks.time_ids.device.type, networks.precision, enabled=mixed)


def predict(networks: Networks, noisy: Tensor, t: Tensor, condition: Condition) -> Tensor:
    """The U-Net's prediction (B, C, h, w) for noisy latents, prompt and image features."""
    conditions = {
        "text_embeds": condition.prompt.pooled,
        "time_ids": networks.time_ids.expand(len(t), -1),
        "image_embeds": [condition.image[:, None]],  # one image a sample, one adapter
    }
    with autocast(networks):
        prediction: Tensor = networks.unet(
            noisy, t, encoder_hidden_states=condition.prompt.tokens, added_cond_kwargs=conditions, return_dict=False
        )[0]
    return prediction.float()


def decode(networks: Networks, latents: Tensor) -> Tensor:
    """Pixels (B, 3, H, W) of scaled latents (B, C, h, w), not clamped: a clamp has no gradient where it acts."""
    vae = networks.preview_vae
    with autocast(networks):
        pixels: Tensor = vae.decode(latents.float() / vae.config.scaling_factor, return_dict=False)[0]
    return pixels.float()


@contextmanager
def reference_pass(networks: Networks, batch: Batch, draw: NoiseDraw) -> Iterator[KeysValues]:
    """The reference's keys and values at the target's t and with its noise, as leaves; none without a KV-encoder.

    When the losses inside have gathered their gradients, one pass carries these back through the KV-encoder (§4.1).
    """
    if networks.kv is None:
        yield {}
        return
    noisy = add_noise(networks.schedule, batch.reference.latents, draw.noise, draw.t)
    prompt = batch.reference.prompt
    conditions = {"text_embeds": prompt.pooled, "time_ids": networks.time_ids.expand(len(draw.t), -1)}
    with autocast(networks):
        shared = networks.kv.encode(noisy, draw.t, prompt.tokens, conditions)
    leaves = as_leaves(shared)
    yield leaves
    backward_through(shared, leaves)


def noise_pass(networks: Networks, batch: Batch, draw: NoiseDraw, condition: Condition) -> Tensor:
    """The noise loss of each pair, (B,), under a condition of which parts were dropped (§3)."""
    noisy = add_noise(networks.schedule, batch.latents, draw.noise, draw.t)
    prediction = predict(networks, noisy, draw.t, condition)
    return noise_loss(prediction, noise_target(networks.schedule, batch.latents, draw.noise, draw.t))


def preview_pass(
    networks: Networks, batch: Batch, draw: NoiseDraw, settings: Preview, generator: torch.Generator
) -> Tensor:
    """Pixels (B, 3, H, W) of each pair's preview; the caller makes the U-Net the fast child, or leaves it (Eq. 3).

    From pure noise, t is the last timestep, whatever was drawn.
    """
    shape = batch.latents.shape
    noises = [to_device(torch.randn(shape, generator=generator)) for _ in range(settings.steps - 1)]
    last = len(networks.schedule.alphas_cumprod) - 1
    t = torch.full_like(draw.t, last) if settings.start == "noise" else draw.t
    start = draw.noise if settings.start == "noise" else add_noise(networks.schedule, batch.latents, draw.noise, t)
    by_name: Callable[..., Tensor] = getattr(preview, f"{settings.stepping}_stepping")
    latents = by_name(
        networks.schedule,
        lambda noisy, now: predict(networks, noisy, now, batch.condition),
        start,
        t,
        noises,
        settings.gradient_steps,
        settings.boundary,
    )
    return decode(networks, latents)


def lookahead_pass(networks: Networks, batch: Batch, pixels: Tensor, distance: str) -> tuple[Tensor, Tensor]:
    """A distance by name, (B,), of previews (B, 3, H, W), and whether each one counts, bool (B,) (Eq. 4).

    Without a detector the target's landmarks align the preview at every t. With one, the preview's own do where a face
    is found, and the target's elsewhere; the second result says where one was found.
    """
    landmarks, found = batch.landmarks, torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
    if networks.detector is not None:
        seen, found = (part.to(pixels.device) for part in networks.detector(pixels.detach()))
        landmarks = torch.where(found[:, None, None], seen, landmarks)
    crops = align(pixels, landmarks)
    with autocast(networks):
        embeddings = networks.recogniser(crops).float()
    by_name: Callable[[Tensor, Tensor], Tensor] = getattr(lookahead, f"{distance}_distance")
    return by_name(embeddings, batch.embeddings), found
