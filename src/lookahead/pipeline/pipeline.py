"""The pipeline: a stock one with the encoder, for anybody who has portraits and a prompt; its export with a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lookahead.artifacts import atomic, new_folder, read_json, write_json
from lookahead.config import Checkpoints, KVGuidance, Personalize, Section, with_overrides
from lookahead.config.fields import checked
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE, save_adapter
from lookahead.models.fast_child import child_at, lora_layers, switch_off
from lookahead.models.kv_encoder import KV_FILE, open_kv_encoder
from lookahead.sampling.conditions import (
    Condition,
    Reference,
    embed_prompts,
    encode_photos,
    reference_latents,
    reference_pixels,
)
from lookahead.sampling.loop import Callback, Sampler, draw, image_guidance, kv_guidance, prepare
from lookahead.sampling.steering import Identifier, open_guide, open_identifier
from lookahead.world import (
    FAST_CHILD,
    attach_adapter,
    attach_fast_child,
    detach_adapter,
    detach_fast_child,
    open_image_encoder,
    open_pipeline,
    open_safety_checker,
    to_uint8,
)

Features = tuple[Tensor, Tensor]  # of photos (N, S, D), and of no photo (1, S, D)
SETTINGS_FILE, CARD = "lookahead.json", "README.md"
_LARGEST_SEED = 2**63
_ROWS = {"adapter": "untuned adapter", "noise_only": "tuned, noise loss only", "tuned": "tuned with lookahead"}


class Saved(Section):
    """The content of `lookahead.json`: the world of an encoder, and how its pictures are drawn."""

    checkpoints: Checkpoints
    personalize: Personalize


class LookaheadPipeline:
    """A stock pipeline, its image adapter and, where the encoder has one, the KV-encoder.

    `base` is diffusers' own pipeline, for whatever that offers: offloading, slicing, other LoRAs;
    `settings` are the defaults of a call.
    """

    def __init__(self, checkpoints: Checkpoints, settings: Personalize, encoder: Path | None) -> None:
        """Open a world with a trained encoder, the folder that training wrote, or with its untuned adapter."""
        self.checkpoints, self.settings = checkpoints, settings
        self.base: Any = open_pipeline(checkpoints)
        self._scheduler: Any = self.base.scheduler  # the base's own; every call starts from it
        self._attach(encoder)

    def exchange(self, encoder: Path | None) -> None:
        """Draw with another encoder from now on, or with the untuned adapter; the rest of the world stays open."""
        if encoder != self.encoder:
            detach_adapter(self.base)
            detach_fast_child(self.base)
            self._attach(encoder)

    def _attach(self, encoder: Path | None) -> None:
        """Attach an encoder to the plain base."""
        kv = None if encoder is None else encoder / KV_FILE
        self.encoder = encoder
        self._kv = open_kv_encoder(kv, self.base.unet) if kv is not None and kv.is_file() else None
        attach_fast_child(self.base, self.checkpoints)
        attach_adapter(self.base, self.checkpoints if encoder is None else encoder / ADAPTER_FILE)
        self._child = lora_layers(self.base.unet, FAST_CHILD)
        switch_off(self._child)

    @property
    def has_kv(self) -> bool:
        """Whether the encoder has a KV-encoder."""
        return self._kv is not None

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> LookaheadPipeline:
        """Open what `save_pretrained` or `lookahead export` wrote."""
        path = Path(folder) / SETTINGS_FILE
        if not path.is_file():
            raise InputError(f"{path} does not exist: `lookahead export {folder}` writes such a folder")
        saved = checked(Saved, read_json(path), str(path), "file")
        return cls(saved.checkpoints, saved.personalize, Path(folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the encoder, bit for bit, and the names of its checkpoints; the base is not copied."""
        target = Path(folder)
        if self.encoder is None:
            save_adapter(target / ADAPTER_FILE, self.base.unet)
        elif self.encoder.resolve() != target.resolve():
            for source in filter(Path.is_file, (self.encoder / ADAPTER_FILE, self.encoder / KV_FILE)):
                with atomic(target / source.name) as temporary:
                    temporary.write_bytes(source.read_bytes())
        saved = Saved(checkpoints=self.checkpoints, personalize=self.settings)
        write_json(target / SETTINGS_FILE, saved.model_dump(mode="json"))

    def __call__(
        self,
        portraits: Image.Image | Sequence[Image.Image],
        prompt: str | Sequence[str],
        negative_prompt: str | None = None,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        seed: int = 0,
        scheduler: str | None = None,
        fast: bool = False,
        adapter_scale: float | None = None,
        kv: bool | None = None,
        kv_guidance: KVGuidance | None = None,
        combine: Literal["average", "concatenate"] | None = None,
        steering: float | None = None,
        callback: Callback | None = None,
        encoded: Features | None = None,
    ) -> list[Image.Image]:
        """Draw pictures of each prompt, with seeds `seed`, `seed` + 1, ...; what is None comes from `settings`.

        The portraits are of one person, whose first one the KV-encoder sees; a prompt should name "a person". A picture
        does not depend on its batch. `fast` draws with the fast child (LCM-LoRA) in the few steps of `settings.fast`.
        `guidance_scale` is for drawing without the KV-encoder, or in few steps, `kv_guidance` for drawing with it.
        `steering` is the strength of lookahead guidance, in standard deviations of the clean latents; 0 is off.
        `callback` gets the index, the timestep and the latents of each step of each batch. `encoded` are the portraits'
        features by `encode_portraits`, without which the image encoder is opened, and stays.
        """
        several = [portraits] if isinstance(portraits, Image.Image) else portraits
        photos = [photo.convert("RGB") for photo in several]
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        count = num_images_per_prompt
        _refuse(len(photos), prompts, negative_prompt or "", count, seed)
        prefix = "fast." if fast else ""
        overrides = {
            f"{prefix}num_inference_steps": num_inference_steps,
            f"{prefix}guidance_scale": guidance_scale,
            f"{prefix}scheduler": scheduler,
            "adapter_scale": adapter_scale,
            "kv": kv,
            "kv_guidance": None if kv_guidance is None else kv_guidance.model_dump(),
            "combine": combine,
            "steering.strength": steering,
        }
        settings = with_overrides(self.settings, {path: v for path, v in overrides.items() if v is not None})
        encoded = encoded or encode_photos(*self._image_encoder, photos, settings.batch_size)
        return self._draw(photos, prompts, negative_prompt, count, seed, settings, fast, callback, encoded)

    def _draw(
        self,
        photos: list[Image.Image],
        prompts: list[str],
        negative_prompt: str | None,
        count: int,
        seed: int,
        settings: Personalize,
        fast: bool,
        callback: Callback | None,
        encoded: Features,
    ) -> list[Image.Image]:
        """Draw `count` pictures of each prompt, in batches."""
        rows = [row for row in range(len(prompts)) for _ in range(count)]  # of each picture the index of its prompt
        seeds = [seed + number % count for number in range(len(rows))]

        def expanded(one: Tensor) -> Tensor:
            return one.expand(len(rows), *one.shape[1:])

        text, no_text = embed_prompts(self.base, prompts, negative_prompt)
        image, no_image = combined(encoded, settings.combine)
        given = Condition(text.map(lambda each: each[rows]), expanded(image))
        free = Condition(no_text, no_image).map(expanded)
        sampler = self._sampler(settings, fast)
        reference = aims = None
        if sampler.kv is not None:
            alone = embed_prompts(self.base, [settings.portrait_prompt])[0]
            reference = Reference(reference_latents(self.base, photos[:1]), alone).map(expanded)
        if sampler.steer is not None:
            aims = expanded(self._identifier.face(reference_pixels(self.base, photos)))
        drawn: list[Image.Image] = []
        with child_at(self._child, FAST_CHILD, 1.0) if fast else nullcontext():
            for start in range(0, len(rows), settings.batch_size):
                batch = slice(start, start + settings.batch_size)
                take = itemgetter(batch)
                own = reference and reference.map(take)
                towards = aims if aims is None else aims[batch]
                pixels = draw(sampler, given.map(take), free.map(take), seeds[batch], own, towards, callback)
                if not pixels.isfinite().all():
                    fault = "the picture has numbers that are not finite: lower guidance or scale"
                    raise InputError(f"{fault}, or check the encoder {self.encoder or 'of the world'}")
                drawn += self._blackened(to_pictures(pixels))
        return drawn

    def _sampler(self, settings: Personalize, fast: bool) -> Sampler:
        kv, chosen = self._kv if settings.kv else None, settings.fast if fast else settings
        guidance = image_guidance(chosen.guidance_scale)
        if kv is not None:
            guidance = kv_guidance(chosen.guidance_scale) if fast else settings.kv_guidance
        self.base.scheduler = self._scheduler
        steps = chosen.num_inference_steps
        trailing = fast and self.checkpoints.fast_child.timesteps is not None
        sampler = prepare(self.base, chosen.scheduler, steps, settings.adapter_scale, guidance, kv, trailing)
        if settings.steering.strength == 0:
            return sampler
        child = [] if fast else self._child  # while drawing in few steps the U-Net is the fast child already
        return replace(sampler, steer=open_guide(self.base, child, self._identifier, settings.steering).steer)

    @cached_property
    def _image_encoder(self) -> tuple[CLIPVisionModelWithProjection, CLIPImageProcessor]:
        return open_image_encoder(self.checkpoints)

    def _blackened(self, pictures: list[Image.Image]) -> list[Image.Image]:
        """The pictures, black where the safety checker, if the world has one, flags them; it warns of each."""
        if self.checkpoints.safety_checker is None:
            return pictures
        checker, processor = self._safety_checker
        inputs = processor(pictures, return_tensors="pt").pixel_values.to(checker.device, checker.dtype)
        shown, _ = checker(images=np.stack([np.asarray(picture) for picture in pictures]), clip_input=inputs)
        return [Image.fromarray(picture) for picture in shown]

    @cached_property
    def _safety_checker(self) -> tuple[StableDiffusionSafetyChecker, CLIPImageProcessor]:
        return open_safety_checker(self.checkpoints)

    @cached_property
    def _identifier(self) -> Identifier:
        return open_identifier(self.checkpoints)


def _refuse(photos: int, prompts: Sequence[str], negative_prompt: str, count: int, seed: int) -> None:
    """InputError for what cannot be drawn, whatever the settings are."""
    if not photos or not prompts or count < 1:
        raise InputError(f"{photos} portraits, {len(prompts)} prompts, {count} images: give at least one")
    if not 0 <= seed <= _LARGEST_SEED - count:
        raise InputError(f"the seed is {seed}: choose one from 0 to {_LARGEST_SEED - count}")
    for text in (*prompts, negative_prompt):
        if text != text.encode(errors="replace").decode():
            raise InputError(f"the prompt {text!r:.80} is not valid text: write it in UTF-8")


def encode_portraits(checkpoints: Checkpoints, photos: Sequence[Image.Image], batch_size: int) -> Features:
    """The features of one person's photos; the image encoder is closed again.

    Before a pipeline is opened, so that both are never in memory together (7.5 GB of Stable Diffusion 1.5 in float32).
    """
    return encode_photos(*open_image_encoder(checkpoints), photos, batch_size)


def combined(encoded: Features, combine: Literal["average", "concatenate"]) -> Features:
    """Image features (1, S, D) of one person's N photos as one, and of no photo."""
    image, no_image = encoded
    if combine == "average":
        return image.mean(0, keepdim=True), no_image
    return image.flatten(0, 1)[None], no_image.repeat(1, len(image), 1)  # the resampler attends to all of them


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """Pictures of pixels (B, 3, H, W) in [-1, 1]."""
    return [Image.fromarray(picture) for picture in to_uint8(pixels)]


def export(pipe: LookaheadPipeline, out: Path, intervals: Path | None) -> None:
    """Write the encoder, its settings and a model card with the evaluation's `intervals.json`, where there is one."""
    measured = read_json(intervals) if intervals and intervals.is_file() and pipe.encoder is not None else {}
    with nullcontext(out) if (out / ADAPTER_FILE).is_file() else new_folder(out) as folder:
        pipe.save_pretrained(folder)
        with atomic(folder / CARD) as temporary:
            temporary.write_text(card(pipe, measured), encoding="utf-8")


def card(pipe: LookaheadPipeline, metrics: Mapping[str, Any]) -> str:
    """The model card in Markdown, with a row for each evaluated encoder."""
    loader = PackageLoader("lookahead.pipeline")
    environment = Environment(loader=loader, undefined=StrictUndefined, autoescape=False, trim_blocks=True)  # Markdown
    rows = [(label, metrics[method]) for method, label in _ROWS.items() if method in metrics]
    return environment.get_template("card.md.j2").render(
        checkpoints=pipe.checkpoints,
        stock=type(pipe.base).__name__,
        adapter=ADAPTER_FILE,
        kv=KV_FILE if pipe.has_kv else None,
        tuned=pipe.encoder is not None,
        rows=rows,
        invented=metrics.get("invented"),
    )
