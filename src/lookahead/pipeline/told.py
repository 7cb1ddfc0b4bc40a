"""What portraits and prompts become before the first step: conditions of each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from lookahead.sampling.conditions import (
    Condition,
    Prompt,
    Reference,
    embed_prompts,
    encode_photos,
    reference_pixels,
)
from lookahead.world import Pipeline, device, encode_latents


@dataclass(frozen=True)
class Person:
    """A person's portraits as the networks are told them.

    `image` (1, S, D) and `nothing` (1, S, D), no portrait, are image features; `pixels` (N, 3, H, W) in [-1, 1] are the
    portraits at the base's resolution.
    """

    image: Tensor
    nothing: Tensor
    pixels: Tensor


def tell_person(
    pipe: Pipeline,
    image_encoder: tuple[Pipeline, Pipeline],
    portraits: Sequence[Image.Image],
    combine: Literal["average", "concatenate"],
) -> Person:
    """Encode the portraits of one person.

    Averaged, their image features keep their length; concatenated, the adapter's resampler attends to all of them.
    """
    photos = [portrait.convert("RGB") for portrait in portraits]
    features, nothing = encode_photos(*image_encoder, photos)  # (N, S, D), (1, S, D)
    pixels = reference_pixels(pipe, photos)
    if combine == "average":
        return Person(features.mean(0, keepdim=True), nothing, pixels)
    return Person(features.flatten(0, 1)[None], nothing.repeat(1, len(photos), 1), pixels)


@torch.no_grad()
def tell_prompts(pipe: Pipeline, prompts: list[str], negative: str | None) -> tuple[Prompt, Prompt]:
    """Each prompt, and the unconditional or negative one (1, ...), as diffusers embeds them."""
    if negative is None:
        return embed_prompts(pipe, prompts)
    text, free_text, pooled, free_pooled = pipe.encode_prompt(
        prompts,
        negative_prompt=[negative] * len(prompts),
        device=device(),
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
    )
    return Prompt(text, pooled), Prompt(free_text[:1], free_pooled[:1])


def conditions(person: Person, prompts: Prompt, free: Prompt, rows: list[int]) -> tuple[Condition, Condition]:
    """The conditions of some pictures, given the number of each one's prompt, and the unconditional ones."""
    count = len(rows)
    given = prompts.map(lambda every: every[rows])
    none = free.map(lambda one: one.expand(count, *one.shape[1:]))
    image, nothing = (x.expand(count, -1, -1) for x in (person.image, person.nothing))
    return Condition(given, image), Condition(none, nothing)


def first_reference(pipe: Pipeline, person: Person, prompt: str, count: int) -> Reference:
    """What the KV-encoder sees `count` times: the first portrait, and its prompt."""
    alone = Reference(encode_latents(pipe.vae, person.pixels[:1]), embed_prompts(pipe, [prompt])[0])
    return alone.map(lambda one: one.expand(count, *one.shape[1:]))
