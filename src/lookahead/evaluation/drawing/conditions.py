"""The conditions of every prompt and person: encoded once, in batches, for all cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor

from lookahead.config import Checkpoints
from lookahead.errors import InputError
from lookahead.evaluation.drawing.plan import Plan, Shot
from lookahead.portraits import Person, open_picture
from lookahead.sampling.conditions import (
    Condition,
    Prompt,
    Reference,
    embed_prompts,
    encode_photos,
    reference_latents,
    reference_pixels,
)
from lookahead.sampling.steering import Identifier
from lookahead.world import Pipeline, device, open_image_encoder

T = TypeVar("T")


@dataclass(frozen=True)
class Conditions:
    """The conditions of every prompt and person.

    `prompts` (S·C, ...) are in the order of the plan's; `image` (P, S, D) and `latents` (P, C, h, w) are of the
    reference photos; `free` (1, ...) is the unconditional one.
    """

    prompts: Prompt
    image: Tensor
    free: Condition
    latents: Tensor

    def given(self, plan: Plan, shots: Sequence[Shot]) -> Condition:
        """The conditions of some shots."""
        prompt = torch.tensor([plan.prompt_number(shot) for shot in shots])
        return Condition(self.prompts.map(lambda every: every[prompt]), self.image[people_of(shots)])

    def reference(self, shots: Sequence[Shot]) -> Reference:
        """What the KV-encoder sees in some shots: the photo, and the prompt of a photo in the first scene.

        A portrait's scene is not known.
        """
        return Reference(self.latents[people_of(shots)], self._plain(len(shots)))

    def alone(self, people: Sequence[int]) -> Condition:
        """The reference of some people, with the prompt of a photo in the first scene."""
        return Condition(self._plain(len(people)), self.image[torch.tensor(people)])

    def nothing(self, count: int) -> Condition:
        """The unconditional one, `count` times."""
        return self.free.map(lambda one: one.expand(count, *one.shape[1:]))

    def _plain(self, count: int) -> Prompt:
        return self.prompts.map(lambda every: every[:1].expand(count, *every.shape[1:]))


def people_of(shots: Sequence[Shot]) -> Tensor:
    """The numbers (B,) of the people that some shots show."""
    return torch.tensor([shot.person for shot in shots])


def in_batches(paths: Sequence[Path], batch_size: int, encode: Callable[[list[Image.Image]], T]) -> list[T]:
    """What `encode` makes of each batch of pictures; one batch is open at a time."""
    starts = range(0, len(paths), batch_size)
    return [encode([open_picture(path) for path in paths[start : start + batch_size]]) for start in starts]


def encode_conditions(
    checkpoints: Checkpoints, pipe: Pipeline, people: Sequence[Person], plan: Plan, batch_size: int
) -> Conditions:
    """Encode the plan's prompts, and the reference photos in batches; the image encoder is closed again.

    Raises:
        InputError: the image encoder is missing, or a photo cannot be read.
    """
    prompts, free = embed_prompts(pipe, [prompt for row in plan.prompts for prompt in row])
    encoder, processor = open_image_encoder(checkpoints)
    references = [person.reference for person in people]
    encoded = in_batches(references, batch_size, lambda photos: encode_photos(encoder, processor, photos))
    latents = in_batches(references, batch_size, lambda photos: reference_latents(pipe, photos))
    image = torch.cat([features for features, _ in encoded])
    return Conditions(prompts, image, Condition(free, encoded[0][1]), torch.cat(latents))


@torch.no_grad()
def encode_aims(pipe: Pipeline, people: Sequence[Person], identifier: Identifier, batch_size: int) -> Tensor:
    """The faces (P, E) that steered pictures aim at: the references', by pack `loss`, at the size that is drawn.

    Raises:
        InputError: no face is found in a reference photo.
    """
    references = [person.reference for person in people]
    parts = in_batches(
        references, batch_size, lambda photos: identifier.embed(reference_pixels(pipe, photos).to(device()))
    )
    found = torch.cat([seen for _, seen in parts])
    if not found.all():
        lost = [str(path) for path, seen in zip(references, found.tolist(), strict=True) if not seen]
        raise InputError(
            f"no face is found by pack `loss` in the reference photo {', '.join(lost)}, at the size that pictures are "
            "drawn in: crop it to the face, or set evaluate.steering to null"
        )
    return torch.cat([faces for faces, _ in parts])
