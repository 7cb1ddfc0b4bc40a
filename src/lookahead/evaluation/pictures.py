"""The pictures of a cell: people x prompts x repeats, what conditions them, and the shards they are drawn into."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from lookahead.artifacts import write_parquet
from lookahead.config import Checkpoints, Evaluate
from lookahead.dataset.prompts import Prompts
from lookahead.errors import InputError
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
from lookahead.sampling.loop import Sampler, draw
from lookahead.sampling.steering import Identifier
from lookahead.world import Pipeline, device, open_image_encoder, to_uint8

T = TypeVar("T")


Asked = tuple[str, ...]  # what a prompt asks for: a style, a scene, and a word of each further kind
Words = dict[str, list[str]]  # by kind; the plain style is the first of the styles


@dataclass(frozen=True)
class Shot:
    """One picture of one person; `noise_seed` is that of its first noise."""

    person: int
    asked: Asked
    repeat: int
    noise_seed: int


@dataclass(frozen=True)
class Plan:
    """All shots of a cell, and the prompt of every combination of words; `plain` is a prompt for references."""

    words: Words
    prompts: dict[Asked, str]
    plain: str
    shots: list[Shot]

    @property
    def styles(self) -> list[str]:
        return self.words["style"]

    def columns(self, shot: Shot) -> dict[str, int | str]:
        """The shot's columns of the long table."""
        asked = dict(zip(self.words, shot.asked, strict=True))
        caption, noise = self.prompts[shot.asked], {"repeat": shot.repeat, "noise_seed": shot.noise_seed}
        return {"person": shot.person, **asked, "caption": caption, **noise}

    def of_people(self, count: int | None) -> Plan:
        """The shots of the first `count` people; None is all."""
        return self if count is None else replace(self, shots=[shot for shot in self.shots if shot.person < count])


def choose_prompts(person: int, words: Words, photos: int) -> list[Asked]:
    """What is asked for of one person: `photos` in the first style, then one picture in every other style.

    Scenes are dealt in turn, so that over people every style meets every scene equally often. The words of each further
    kind are dealt to a person in an order of their own, each equally often.
    """
    (plain, *others), scenes, *details = words.values()
    styles = [plain] * photos + others
    turns = [*range(person * photos, (person + 1) * photos), *range(person, person + len(others))]
    columns = [styles, [scenes[turn % len(scenes)] for turn in turns]]
    for kind, some in enumerate(details):
        order = np.random.default_rng([person, kind]).permutation(len(styles))
        columns.append([some[turn % len(some)] for turn in order])
    return list(zip(*columns, strict=True))


def make_plan(prompts: Prompts, settings: Evaluate) -> Plan:
    """The pictures that the protocol asks for; prompts name no one: identity has to come from the reference."""
    words = {kind: list(phrases) for kind, phrases in prompts.kinds.items()}
    words["style"] = [prompts.plain, *prompts.stylised]
    every = itertools.product(*words.values())
    texts = {asked: prompts.caption(prompts.nobody, dict(zip(words, asked, strict=True))) for asked in every}
    plain = prompts.neutral(prompts.plain, words["scene"][0])
    shots = make_shots(settings.people, words, settings.photo_prompts, settings.seeds, settings.seed)
    return Plan(words, texts, plain, list(shots))


def make_shots(people: int, words: Words, photos: int, repeats: int, seed: int) -> Iterator[Shot]:
    """Every picture of one cell in a fixed order; its noise depends on person, prompt, repeat and `seed` alone."""
    for person in range(people):
        for number, asked in enumerate(choose_prompts(person, words, photos)):
            for repeat in range(repeats):
                noise = np.random.SeedSequence([seed, person, number, repeat]).generate_state(1)
                yield Shot(person, asked, repeat, int(noise[0]))


@dataclass(frozen=True)
class Conditions:
    """What conditions the shots of every prompt and person.

    `prompts` (N, ...) are in the order of `texts`, the plan's for references first; `image` (P, S, D) and `latents`
    (P, C, h, w) are of the reference photos; `free` (1, ...) is the unconditional one.
    """

    texts: list[str]
    prompts: Prompt
    image: Tensor
    free: Condition
    latents: Tensor

    def given(self, plan: Plan, shots: Sequence[Shot]) -> Condition:
        """The conditions of some shots."""
        prompt = torch.tensor([self.texts.index(plan.prompts[shot.asked]) for shot in shots])
        return Condition(self.prompts.map(lambda every: every[prompt]), self.image[people_of(shots)])

    def reference(self, shots: Sequence[Shot]) -> Reference:
        """What the KV-encoder sees: the photo, with the prompt of a photo in the first scene: its own is not known."""
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
    """Encode the plan's prompts, and the reference photos in batches; the image encoder is closed again."""
    texts = list(dict.fromkeys([plan.plain, *(plan.prompts[shot.asked] for shot in plan.shots)]))
    prompts, free = embed_prompts(pipe, texts)
    references = [person.reference for person in people]
    latents = in_batches(references, batch_size, lambda photos: reference_latents(pipe, photos))
    encoder, processor = open_image_encoder(checkpoints)
    encoded = in_batches(references, batch_size, lambda photos: encode_photos(encoder, processor, photos))
    image = torch.cat([features for features, _ in encoded])
    return Conditions(texts, prompts, image, Condition(free, encoded[0][1]), torch.cat(latents))


@torch.no_grad()
def encode_aims(pipe: Pipeline, people: Sequence[Person], identifier: Identifier, batch_size: int) -> Tensor:
    """The faces (P, E) that steered pictures aim at: the references', by pack `loss`, at the size that is drawn."""
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


def draw_shots(
    sampler: Sampler, plan: Plan, shots: Sequence[Shot], conditions: Conditions, aims: Tensor | None
) -> list[bytes]:
    """The pictures of a batch of shots as PNG; `aims` are everybody's faces (P, E), for steering."""
    given, free = conditions.given(plan, shots), conditions.nothing(len(shots))
    faces = None if aims is None else aims[people_of(shots)]
    seeds = [shot.noise_seed for shot in shots]
    pixels = draw(sampler, given, free, seeds, conditions.reference(shots), faces)
    return [png(Image.fromarray(image)) for image in to_uint8(pixels)]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_shard(path: Path, pngs: list[bytes]) -> None:
    """Write a batch of pictures."""
    write_parquet(path, pa.table({"image": pngs}))


def read_pngs(path: Path) -> list[bytes]:
    """The pictures of one shard as PNG bytes."""
    try:
        return pq.read_table(path)["image"].to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}): remove it, and the same command draws it again") from None


def read_shard(path: Path) -> list[Image.Image]:
    """The pictures of one shard."""
    return [Image.open(io.BytesIO(row)).convert("RGB") for row in read_pngs(path)]


def read_pictures(folder: Path) -> Iterator[Image.Image]:
    """The pictures of a folder of shards, in the order of the plan."""
    for path in sorted(folder.glob("[0-9]*.parquet")):
        yield from read_shard(path)
