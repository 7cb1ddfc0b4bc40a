"""The demo without its page: checks a portrait, draws with the untuned and the tuned encoder, and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
import torch
from PIL import Image, ImageDraw

from lookahead.config import KVGuidance, World
from lookahead.errors import InputError
from lookahead.evaluation.scores import FaceReader, embed_pictures, embed_texts, similarity
from lookahead.pipeline import LookaheadPipeline
from lookahead.pipeline.personalize import FaceCheck, doubts
from lookahead.world import open_scorer

UNTUNED, TUNED = "untuned", "tuned"
_FRAME = "#d4552a"
_PORTRAIT = "the portrait"  # its name in messages: an upload has no useful one
Warn = Callable[[str], object]
Progress = Callable[[str, int, int], None]  # of the encoder's name, the steps done, and their number


class Stopped(Exception):
    """The visitor pressed Stop."""


@dataclass(frozen=True)
class Options:
    """The page's controls; `guidance` multiplies every guidance scale of the settings."""

    prompt: str
    images: int
    seed: int
    adapter_scale: float
    guidance: float
    kv: bool
    fast: bool


@dataclass(frozen=True)
class Drawn:
    """A picture, its seed, its identity (None: no face is found in it), and its similarity to the prompt by CLIP."""

    picture: Image.Image
    seed: int
    identity: float | None
    prompt: float

    @property
    def caption(self) -> str:
        """Scores and seed in a line; a narrow page cuts off the seed."""
        identity = "no face found" if self.identity is None else f"identity {self.identity:.2f}"
        return f"{identity}, prompt {self.prompt:.2f}, seed {self.seed}"


class Studio:
    """The world's scorers and its one pipeline, untuned and, where an encoder is given, tuned in turns.

    `settings` are the controls' initial values, `encoders` the names in the order of `draw`.
    """

    def __init__(self, world: World, encoder: Path | None) -> None:
        """Open everything."""
        self.settings, checkpoints = world.personalize, world.checkpoints
        self.encoders = {UNTUNED: None} if encoder is None else {UNTUNED: None, TUNED: encoder}
        self._pipe = LookaheadPipeline(checkpoints, self.settings, None)
        self._pipe.exchange(encoder)  # both are opened once, so that a damaged one is known now
        self.has_kv = self._pipe.has_kv
        self._check = FaceCheck(checkpoints, self.settings.min_face_size)
        self._faces, self._scorer = FaceReader(checkpoints.faces), open_scorer(checkpoints)

    def look(self, portrait: Image.Image) -> tuple[Image.Image, str]:
        """The portrait with a frame around every detected face, and whether it can be used."""
        framed = portrait.convert("RGB")
        try:
            self._check(framed, _PORTRAIT)
            message = "One face is found: this portrait can be used."
        except InputError as error:
            message = f"This cannot be used. {error}."
        for box in self._check.boxes(framed):
            ImageDraw.Draw(framed).rectangle(box[:4].tolist(), outline=_FRAME, width=max(1, min(framed.size) // 80))
        return framed, message

    def draw(
        self, portrait: Image.Image | None, options: Options, stop: Event, progress: Progress, warn: Warn
    ) -> Iterator[tuple[str, list[Drawn]]]:
        """Every encoder's name and pictures, one encoder after the other, equal seeds; Stopped if `stop` is set.

        `warn` receives what the world does not know.
        """
        if portrait is None:
            raise InputError("there is no portrait: upload one, take one, or click on an example")
        if not options.prompt.strip():
            raise InputError("the prompt is empty: write what to draw of `a person`, or choose a style and a scene")
        square = self._check(portrait.convert("RGB"), _PORTRAIT)
        for doubt in doubts(self._pipe, [square], [options.prompt]):
            warn(doubt)
        for name in self.encoders:
            yield name, self._score(square, self._draw(name, square, options, stop, progress), options)

    def _draw(
        self, name: str, square: Image.Image, options: Options, stop: Event, progress: Progress
    ) -> list[Image.Image]:
        settings = self.settings
        chosen = settings.fast if options.fast else settings
        total, done = chosen.num_inference_steps * -(-options.images // settings.batch_size), 0

        def callback(step: int, t: int, latents: torch.Tensor) -> None:
            nonlocal done
            if stop.is_set():
                raise Stopped
            done += 1
            progress(name, min(done, total), total)

        self._pipe.exchange(self.encoders[name])
        return self._pipe(
            square,
            options.prompt,
            guidance_scale=options.guidance * chosen.guidance_scale,
            num_images_per_prompt=options.images,
            seed=options.seed,
            fast=options.fast,
            adapter_scale=options.adapter_scale,
            kv=options.kv,
            kv_guidance=KVGuidance(**{k: v * options.guidance for k, v in settings.kv_guidance.model_dump().items()}),
            callback=callback,
        )

    def _score(self, square: Image.Image, pictures: list[Image.Image], options: Options) -> list[Drawn]:
        reference = self._faces.read(np.asarray(square))
        text = embed_texts(self._scorer, [options.prompt])[0]  # (D,)
        prompts = (embed_pictures(self._scorer, pictures) @ text).tolist()
        drawn = []
        for number, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
            face = self._faces.read(np.asarray(picture))
            identity = None if reference is None or face is None else similarity(face, reference, "report")
            drawn.append(Drawn(picture, options.seed + number, identity, prompt))
        return drawn
