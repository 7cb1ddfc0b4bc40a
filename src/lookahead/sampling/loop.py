"""The sampling loop over batches of many people at once, with image tokens, with the KV-encoder, with both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lookahead.config import KVGuidance
from lookahead.errors import InputError
from lookahead.method.attention import KeysValues, appended
from lookahead.method.diffusion import NoiseSchedule, add_noise
from lookahead.method.guidance import guided
from lookahead.models.kv_encoder import KVEncoder, extend_self_attention
from lookahead.sampling.conditions import Condition, Prompt, Reference
from lookahead.world import Pipeline, decode_latents, device, scheduler_class

Steer = Callable[[Tensor, Tensor, Tensor, Condition, Tensor], Tensor]
"""The prediction to continue with, of the guided one (B, C, h, w), t (), the U-Net's noisy latents (B, C, h, w), the
samples' conditions and the target embeddings (B, E)."""
Callback = Callable[[int, int, Tensor], object]
"""Called after each step with its index, its timestep and the latents (B, C, h, w)."""


@dataclass(frozen=True)
class Sampler:
    """A pipeline prepared for sampling: with its KV-encoder, if there is one, and the guidance scale of each condition.

    Scales: `image` of prompt and image tokens, `both` of these with the reference's keys and values, `kv` of the keys
    and values alone, of the reference without a prompt. A scale of 0 costs nothing. `steer` changes the guided
    prediction (`sampling.steering`).
    """

    pipe: Pipeline
    num_inference_steps: int
    guidance: KVGuidance
    kv: KVEncoder | None
    bank: KeysValues
    steer: Steer | None = None


def noise_schedule(scheduler: Any) -> NoiseSchedule:
    """The schedule that a model was trained with, of its diffusers scheduler, on the device."""
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise InputError(f"the base model predicts {kind!r}; epsilon and v_prediction are supported")
    return NoiseSchedule(scheduler.alphas_cumprod.to(device(), torch.float32), kind)


def prepare(
    pipe: Pipeline,
    scheduler: str,
    num_inference_steps: int,
    adapter_scale: float,
    guidance: KVGuidance,
    kv: KVEncoder | None = None,
    trailing: bool = False,
) -> Sampler:
    """Prepare a pipeline with an image adapter; without a KV-encoder nothing of it is built or run.

    `trailing` spaces the timesteps backwards from the last one, as few-step LoRAs want that know a few timesteps only.
    """
    spacing = {"timestep_spacing": "trailing"} if trailing else {}
    pipe.scheduler = scheduler_class(scheduler).from_config(pipe.scheduler.config, **spacing)
    pipe.set_ip_adapter_scale(adapter_scale)
    bank = extend_self_attention(pipe.unet) if kv is not None else {}
    return Sampler(pipe, num_inference_steps, guidance, kv, bank)


def set_timesteps(scheduler: Any, count: int) -> None:
    """Space a scheduler's timesteps; InputError where it cannot do so many, or so few."""
    most = scheduler.config.num_train_timesteps
    try:
        if count > most:
            raise ValueError(f"the base was trained with {most} timesteps")
        scheduler.set_timesteps(count, device=device())
    except (ValueError, IndexError) as error:  # schedulers check this in ways of their own, or not at all
        fault = f"num_inference_steps is {count}: not possible with {type(scheduler).__name__}"
        raise InputError(f"{fault}, choose another number ({str(error)[:120]})") from None


def image_guidance(scale: float) -> KVGuidance:
    """Plain classifier-free guidance by prompt and image tokens."""
    return KVGuidance(image=scale, both=0.0, kv=0.0)


def kv_guidance(scale: float) -> KVGuidance:
    """Plain classifier-free guidance by prompt, image tokens and keys and values at once."""
    return KVGuidance(image=0.0, both=scale, kv=0.0)


@torch.no_grad()
def draw(
    sampler: Sampler,
    given: Condition,
    free: Condition,
    seeds: Sequence[int],
    reference: Reference | None = None,
    aims: Tensor | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """Draw one picture a sample: pixels (B, 3, H, W) in [-1, 1].

    diffusers' own call takes one reference a batch only; for that case both give the same picture (tested). `given` are
    the samples' conditions, `free` the unconditional ones, and `seeds` those of each sample's noise, so that a picture
    does not depend on its batch. `reference` is the KV-encoder's input, `aims` (B, E) unit embeddings to steer to.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    noise = start_noise(sampler.pipe, generators)
    latents = draw_latents(sampler, given, free, noise, reference, generators, aims, callback)
    return decode_latents(sampler.pipe.vae, latents).float().clamp(-1, 1)


def start_noise(pipe: Pipeline, generators: Sequence[torch.Generator]) -> Tensor:
    """One noise (B, C, h, w) a generator, drawn on the CPU."""
    side = pipe.unet.config.sample_size
    shape = (1, pipe.unet.config.in_channels, side, side)
    return torch.cat([torch.randn(shape, generator=g, dtype=pipe.unet.dtype) for g in generators]).to(device())


@torch.no_grad()
def draw_latents(
    sampler: Sampler,
    given: Condition,
    free: Condition,
    noise: Tensor,
    reference: Reference | None,
    generators: Sequence[torch.Generator],
    aims: Tensor | None = None,
    callback: Callback | None = None,
) -> Tensor:
    """The loop from noise (B, C, h, w) to scaled latents; `generators` serve schedulers that add noise of their own."""
    pipe = sampler.pipe
    set_timesteps(pipe.scheduler, sampler.num_inference_steps)
    latents = noise * pipe.scheduler.init_noise_sigma
    random = pipe.prepare_extra_step_kwargs(list(generators), 0.0)
    for step, t in enumerate(pipe.scheduler.timesteps):
        noisy = pipe.scheduler.scale_model_input(latents, t)
        prediction = predict_guided(sampler, noisy, t, given, free, noise, reference)
        if sampler.steer is not None:
            assert aims is not None, "steering needs target embeddings"
            prediction = sampler.steer(prediction, t, noisy, given, aims)
        latents = pipe.scheduler.step(prediction, t, latents, **random).prev_sample
        if callback is not None:
            callback(step, int(t), latents)
    return latents


def predict_guided(
    sampler: Sampler,
    noisy: Tensor,
    t: Tensor,
    given: Condition,
    free: Condition,
    noise: Tensor,
    reference: Reference | None,
) -> Tensor:
    """The guided prediction (B, C, h, w) for noisy latents at t, `noise` being what the latents started from."""
    scales = sampler.guidance
    plain = [(scales.image, given)] * (scales.image > 0)
    extended = [(scales.both, given)] * (scales.both > 0)
    extended += [(scales.kv, free)] * (scales.kv > 0)
    weights = [scale for scale, _ in plain + extended]
    alone = weights == [1.0]  # where the unconditional prediction cancels
    asked = [] if alone else [free]
    asked += [condition for _, condition in plain]
    predictions = predict(sampler.pipe, noisy, t, asked) if asked else []
    if extended:
        assert sampler.kv is not None, "guidance by keys and values needs a KV-encoder"
        assert reference is not None, "guidance by keys and values needs a reference"
        prompts = [reference.prompt] * (scales.both > 0) + [free.prompt] * (scales.kv > 0)
        with appended(sampler.bank, _encode(sampler.pipe, sampler.kv, reference.latents, prompts, noise, t)):
            predictions += predict(sampler.pipe, noisy, t, [condition for _, condition in extended])
    return predictions[0] if alone else guided(predictions[0], predictions[1:], weights)


def _encode(
    pipe: Pipeline, kv: KVEncoder, latents: Tensor, prompts: Sequence[Prompt], noise: Tensor, t: Tensor
) -> KeysValues:
    """Keys and values of references (B, C, h, w) under each prompt in turn, at the samples' t and noise (§4.1)."""
    schedule = NoiseSchedule(pipe.scheduler.alphas_cumprod, "epsilon")  # only to add noise
    noisy = add_noise(schedule, latents.float(), noise.float(), t.long().expand(len(noise))).to(noise.dtype)
    tokens, pooled = (torch.cat(parts) for parts in zip(*((p.tokens, p.pooled) for p in prompts), strict=True))
    added = {"text_embeds": pooled, "time_ids": time_ids(pipe, len(pooled))}
    return kv.encode(noisy.repeat(len(prompts), 1, 1, 1), t.long().expand(len(pooled)), tokens, added)


def time_ids(pipe: Pipeline, count: int) -> Tensor:
    """SDXL's conditioning by original size, crop and target size in pixels, (count, 6); other bases ignore it."""
    pixels = pipe.unet.config.sample_size * pipe.vae_scale_factor
    size = [pixels, pixels, 0, 0, pixels, pixels]
    return torch.tensor(size, dtype=pipe.unet.dtype, device=device()).expand(count, -1)


def predict(pipe: Pipeline, latents: Tensor, t: Tensor, conditions: Sequence[Condition]) -> list[Tensor]:
    """One prediction (B, C, h, w) for each condition, in one pass over latents (B, C, h, w) at t, one or (B,)."""
    tokens, pooled, image = (
        torch.cat(parts)
        for parts in zip(*((c.prompt.tokens, c.prompt.pooled, c.image) for c in conditions), strict=True)
    )
    added = {"text_embeds": pooled, "time_ids": time_ids(pipe, len(pooled)), "image_embeds": [image.unsqueeze(1)]}
    many = latents.repeat(len(conditions), 1, 1, 1)
    times = t.repeat(len(conditions)) if t.ndim else t
    prediction: Tensor = pipe.unet(many, times, encoder_hidden_states=tokens, added_cond_kwargs=added).sample
    return list(prediction.chunk(len(conditions)))
