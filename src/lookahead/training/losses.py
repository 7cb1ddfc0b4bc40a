"""The losses of one micro-batch, and their figures for the curves; `backward_...` add gradients to the weights'."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Generator, Tensor

from lookahead.config import Preview
from lookahead.method.attention import KeysValues, appended
from lookahead.method.diffusion import add_noise, noise_loss, noise_target
from lookahead.method.lookahead import DISTANCES, lookahead_loss
from lookahead.method.preview import PREVIEWS
from lookahead.method.shared_pass import drop_tokens
from lookahead.models.fast_child import child_at
from lookahead.models.recogniser import align
from lookahead.sampling.conditions import Condition
from lookahead.training.data import Batch, NoiseDraw, generator_for, scale_at, with_dropout
from lookahead.training.networks import Networks, Training
from lookahead.world import FAST_CHILD, decode_latents, to_device

Figures = dict[str, Tensor]
"""Figures of a micro-batch, each a tensor () on the device: reading one makes the processor wait for the GPU."""
Row = dict[str, float]  # the same as numbers
BINS = 4  # of timesteps, in which the curves show the previews' distance


def autocast(networks: Networks) -> torch.autocast:
    """Half precision inside of networks, also of the decoder and the recogniser (tests/training/test_precision.py)."""
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
    with autocast(networks):
        return decode_latents(networks.preview_vae, latents.float()).float()


def encode_reference(networks: Networks, batch: Batch, draw: NoiseDraw) -> KeysValues:
    """The reference's keys and values at the target's t and with its noise; none without a KV-encoder (§4.1)."""
    if networks.kv is None:
        return {}
    prompt, noisy = batch.reference.prompt, add_noise(networks.schedule, batch.reference.latents, draw.noise, draw.t)
    conditions = {"text_embeds": prompt.pooled, "time_ids": networks.time_ids.expand(len(draw.t), -1)}
    with autocast(networks):
        return networks.kv.encode(noisy, draw.t, prompt.tokens, conditions)


def noise_losses(networks: Networks, batch: Batch, draw: NoiseDraw, condition: Condition) -> Tensor:
    """The noise loss of each pair, (B,) (§3)."""
    noisy = add_noise(networks.schedule, batch.latents, draw.noise, draw.t)
    prediction = predict(networks, noisy, draw.t, condition)
    return noise_loss(prediction, noise_target(networks.schedule, batch.latents, draw.noise, draw.t))


def preview_pixels(
    networks: Networks, batch: Batch, draw: NoiseDraw, settings: Preview, generator: Generator
) -> Tensor:
    """Pixels (B, 3, H, W) of each pair's preview, by the U-Net as it is: the caller sets the fast child (Eq. 3)."""
    noises = [to_device(torch.randn(draw.noise.shape, generator=generator)) for _ in range(settings.steps - 1)]
    noisy = draw.noise
    if settings.start == "target":
        noisy = add_noise(networks.schedule, batch.latents, draw.noise, draw.t)
    latents = PREVIEWS[settings.stepping](
        networks.schedule,
        lambda now_noisy, now: predict(networks, now_noisy, now, batch.condition),
        noisy,
        draw.t,
        noises,
        settings.gradient_steps,
        settings.boundary,
    )
    return decode(networks, latents)


def preview_distances(networks: Networks, batch: Batch, pixels: Tensor, distance: str) -> tuple[Tensor, Tensor]:
    """A distance by name, (B,), of previews (B, 3, H, W) to the wanted faces, and where a face was found, bool (B,).

    The target's landmarks align a preview where no face is found; without a detector all count as found (Eq. 4).
    """
    landmarks, found = batch.landmarks, torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)
    if networks.detector is not None:
        seen, found = (part.to(pixels.device) for part in networks.detector(pixels.detach()))
        landmarks = torch.where(found[:, None, None], seen, landmarks)
    crops = align(pixels, landmarks)
    with autocast(networks):
        embeddings = networks.recogniser(crops).float()
    return DISTANCES[distance](embeddings, batch.embeddings), found


def backward_noise_loss(training: Training, batch: Batch, draw: NoiseDraw, leaves: KeysValues, index: int) -> Figures:
    """Add the noise loss's gradient of micro-batch `index`, under a condition of which parts are dropped (§3)."""
    settings, networks = training.settings, training.networks
    generator = generator_for("drops", settings.seed, index)
    condition = with_dropout(training.store, batch.condition, settings, generator)
    with appended(networks.bank, drop_tokens(leaves, settings.kv.token_dropout, generator)):
        loss = (draw.weight * noise_losses(networks, batch, draw, condition)).mean()
        (loss / settings.gradient_accumulation_steps).backward()
    return {"loss_noise": loss.detach(), "t_noise": draw.t.float().mean()}


def backward_lookahead_loss(
    training: Training, batch: Batch, draw: NoiseDraw, leaves: KeysValues, index: int
) -> Figures:
    """Add the lookahead loss's gradient of micro-batch `index` (Eq. 3, Eq. 4).

    `backward()` runs while the LoRA scale is set and the keys and values are appended: gradient checkpointing computes
    the layers again.
    """
    settings, lookahead, networks = training.settings, training.settings.lookahead, training.networks
    generator = generator_for("preview", settings.seed, index)
    scale = scale_at(lookahead.lora_scale, settings.seed, index // settings.gradient_accumulation_steps)
    naive = lookahead.preview.model == "naive"  # the base itself; the loss is weighted by alpha all the same
    with (
        nullcontext() if naive else child_at(networks.child, FAST_CHILD, scale),
        appended(networks.bank, drop_tokens(leaves, settings.kv.token_dropout, generator)),
    ):
        pixels = preview_pixels(networks, batch, draw, lookahead.preview, generator)
        distance, found = preview_distances(networks, batch, pixels, lookahead.distance)
        weight = draw.weight
        if lookahead.landmarks == "detected_only":  # the mean over previews with a face (official code)
            weight = weight * found * len(found) / found.sum().clamp_min(1)
        loss = lookahead_loss(weight * distance, scale, lookahead.weight_by_scale)
        (loss * lookahead.weight / settings.gradient_accumulation_steps).backward()
    distance = distance.detach()
    return {
        "loss_lookahead": loss.detach(),
        "distance": distance.mean(),
        "scale": torch.full_like(loss, scale, dtype=torch.float64),
        "t_lookahead": draw.t.float().mean(),
        "found": found.float().mean(),
    } | distance_by_timestep(distance, draw.t, training.timesteps)


def distance_by_timestep(distance: Tensor, t: Tensor, timesteps: int) -> Figures:
    """The mean distance of previews (B,) in each of BINS equal ranges of timesteps; nan where a range has none."""
    inside = t * BINS // timesteps == torch.arange(BINS, device=t.device)[:, None]  # (BINS, B)
    means = torch.where(inside, distance, 0).sum(1) / inside.sum(1)  # (BINS,)
    return {f"distance_t{number}": mean for number, mean in enumerate(means)}


def read(figures: list[Figures]) -> list[Row]:
    """The figures of micro-batches as numbers, in one transfer from the device."""
    names = list(figures[0])
    table = torch.stack([torch.stack([one[name].double() for name in names]) for one in figures])  # (N, figures)
    return [dict(zip(names, row, strict=True)) for row in table.tolist()]


def mean_row(rows: list[Row]) -> Row:
    """The mean of each figure over micro-batches; a range of timesteps may have no sample in some of them."""
    means = {}
    for name in rows[0]:
        values = [row[name] for row in rows if not (name.startswith("distance_t") and math.isnan(row[name]))]
        means[name] = sum(values) / len(values) if values else math.nan
    return means


def finite(row: Row) -> Row:
    """The figures that there are: a range of timesteps may have had no sample."""
    return {name: value for name, value in row.items() if math.isfinite(value)}
