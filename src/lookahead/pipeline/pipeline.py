"""The pipeline: stock SDXL with the encoder, for anybody who has portraits and a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from lookahead.config import Checkpoints, KVGuidance, Personalize, with_overrides
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE, save_adapter
from lookahead.models.fast_child import child_at, lora_layers, switch_off
from lookahead.models.kv_encoder import KV_FILE, open_kv_encoder
from lookahead.pipeline.folder import Belongs, copy_encoder, read_belongs, write_belongs
from lookahead.pipeline.told import Person, conditions, first_reference, tell_person, tell_prompts
from lookahead.sampling.conditions import Prompt
from lookahead.sampling.loop import Callback, Sampler, draw, image_guidance, kv_guidance, prepare
from lookahead.sampling.steering import Guide, Identifier, open_guide, open_identifier
from lookahead.world import FAST_CHILD, attach_adapter, attach_fast_child, open_image_encoder, open_pipeline


@dataclass(frozen=True)
class _Order:
    """One call: who, in which prompts, and every picture as (number of its prompt, seed)."""

    person: Person
    prompts: Prompt
    free: Prompt
    pictures: list[tuple[int, int]]


class LookaheadPipeline:
    """Stock SDXL, its image adapter and, where the encoder has one, the KV-encoder.

    Attributes:
        base: the `StableDiffusionXLPipeline`, for whatever diffusers offers: offloading, slicing, other LoRAs.
        settings: what a call starts from.
        has_kv: whether the encoder has a KV-encoder.
    """

    def __init__(self, checkpoints: Checkpoints, settings: Personalize, encoder: Path | None) -> None:
        """Open a world with a trained encoder, the folder that training wrote, or with its untuned adapter.

        Raises:
            InputError: a checkpoint or a file of the encoder is missing, damaged or does not fit.
        """
        kv = None if encoder is None else encoder / KV_FILE
        self.checkpoints, self.settings, self.encoder = checkpoints, settings, encoder
        self.base: Any = open_pipeline(checkpoints)
        self._kv = open_kv_encoder(kv, self.base.unet) if kv is not None and kv.is_file() else None
        attach_fast_child(self.base, checkpoints)
        attach_adapter(self.base, checkpoints if encoder is None else encoder / ADAPTER_FILE)
        self._child = lora_layers(self.base.unet, FAST_CHILD)
        switch_off(self._child)
        self._image_encoder = open_image_encoder(checkpoints)
        self._scheduler: Any = self.base.scheduler  # as the base has it: a call's own must not colour the next one's

    @property
    def has_kv(self) -> bool:
        """Whether the encoder has a KV-encoder."""
        return self._kv is not None

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> LookaheadPipeline:
        """Open what `save_pretrained` or `lookahead export` wrote.

        Raises:
            InputError: it is no such folder, or a checkpoint that it names is missing.
        """
        belongs = read_belongs(Path(folder))
        return cls(belongs.checkpoints, belongs.personalize, Path(folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the encoder, bit for bit, and the names of what it belongs to; the base is not copied.

        Raises:
            InputError: a file cannot be written.
        """
        place = Path(folder)
        if self.encoder is None:
            save_adapter(place / ADAPTER_FILE, self.base.unet)
        elif self.encoder.resolve() != place.resolve():
            copy_encoder(self.encoder, place)
        write_belongs(place, Belongs(checkpoints=self.checkpoints, personalize=self.settings))

    def __call__(
        self,
        portraits: Image.Image | Sequence[Image.Image],
        prompt: str | Sequence[str],
        negative_prompt: str | None = None,
        *,
        seed: int = 0,
        num_images: int = 1,
        fast: bool = False,
        adapter_scale: float | None = None,
        kv: bool | None = None,
        guidance: float | None = None,
        kv_guidance: KVGuidance | None = None,
        scheduler: str | None = None,
        steps: int | None = None,
        combine: Literal["average", "concatenate"] | None = None,
        steering: float | None = None,
        callback: Callback | None = None,
    ) -> list[Image.Image]:
        """Draw `num_images` of each prompt, with seeds `seed`, `seed` + 1, ...; what is None comes from `settings`.

        Args:
            portraits: one or more of one person.
            prompt: one or more; each should name "a person".
            negative_prompt: what the unconditional prediction is told instead of nothing.
            seed: of the first picture of each prompt; a picture does not depend on its batch.
            num_images: of each prompt.
            fast: draw with the fast child (LCM-LoRA) in the few steps of `settings.fast`.
            adapter_scale: how strongly image tokens count.
            kv: False leaves the KV-encoder out, which is faster.
            guidance: weight without the KV-encoder.
            kv_guidance: the three weights with it.
            scheduler: any of diffusers', by its class's name.
            steps: of the scheduler.
            combine: what several portraits become; the KV-encoder sees the first one.
            steering: strength of lookahead guidance, in standard deviations of the clean latents; 0 is off.
            callback: told after each step of each batch: its number, its timestep, the latents.

        Raises:
            InputError: there is no portrait or prompt, or a number is out of range.
        """
        photos = [portraits] if isinstance(portraits, Image.Image) else list(portraits)
        texts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not photos or not texts or num_images < 1:
            raise InputError(f"{len(photos)} portraits, {len(texts)} prompts, {num_images} images: give at least one")
        wishes = {
            "adapter_scale": adapter_scale,
            "kv": kv,
            "fast.guidance" if fast else "guidance": guidance,
            "kv_guidance": None if kv_guidance is None else kv_guidance.model_dump(),
            "fast.scheduler" if fast else "scheduler": scheduler,
            "fast.steps" if fast else "steps": steps,
            "combine": combine,
            "steering.strength": steering,
        }
        plan = with_overrides(self.settings, {path: value for path, value in wishes.items() if value is not None})
        person = tell_person(self.base, self._image_encoder, photos, plan.combine)
        prompts, free = tell_prompts(self.base, texts, negative_prompt)
        pictures = [(row, seed + number) for row in range(len(texts)) for number in range(num_images)]
        return self._draw(plan, fast, _Order(person, prompts, free, pictures), callback)

    def _draw(self, plan: Personalize, fast: bool, order: _Order, callback: Callback | None) -> list[Image.Image]:
        drawn: list[Image.Image] = []
        with child_at(self._child, FAST_CHILD, 1.0) if fast else nullcontext():
            for start in range(0, len(order.pictures), plan.batch):
                drawn += self._draw_batch(plan, fast, order, order.pictures[start : start + plan.batch], callback)
        return drawn

    def _draw_batch(
        self, plan: Personalize, fast: bool, order: _Order, pictures: list[tuple[int, int]], callback: Callback | None
    ) -> list[Image.Image]:
        given, free = conditions(order.person, order.prompts, order.free, [row for row, _ in pictures])
        sampler, aims = self._sampler(plan, fast), None
        if sampler.steer is not None:
            aims = self._identifier.face(order.person.pixels).expand(len(pictures), -1)
        seen = first_reference(self.base, order.person, plan.portrait_prompt, len(pictures)) if sampler.kv else None
        pixels = draw(sampler, given, free, [seed for _, seed in pictures], seen, aims, callback)
        return to_pictures(pixels)

    def _sampler(self, plan: Personalize, fast: bool) -> Sampler:
        kv = self._kv if plan.kv else None
        name, steps = (plan.fast.scheduler, plan.fast.steps) if fast else (plan.scheduler, plan.steps)
        weight = plan.fast.guidance if fast else plan.guidance
        extended = kv_guidance(weight) if fast else plan.kv_guidance
        self.base.scheduler = self._scheduler
        sampler = prepare(
            self.base, name, steps, plan.adapter_scale, image_guidance(weight) if kv is None else extended, kv
        )
        return replace(sampler, steer=self._guide(plan, fast).steer) if plan.steering.strength > 0 else sampler

    def _guide(self, plan: Personalize, fast: bool) -> Guide:
        child = [] if fast else self._child  # the fast child draws itself: it is on already
        return open_guide(self.base, child, self._identifier, plan.steering)

    @cached_property
    def _identifier(self) -> Identifier:
        return open_identifier(self.checkpoints)


def to_pictures(pixels: torch.Tensor) -> list[Image.Image]:
    """Pictures of pixels (B, 3, H, W) in [-1, 1]."""
    grey = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in grey]
