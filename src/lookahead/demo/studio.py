"""What the page does, without the page: looks at a portrait, draws untuned and tuned, and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock

import numpy as np
import torch
from PIL import Image, ImageDraw

from lookahead.config import KVGuidance, World
from lookahead.errors import InputError
from lookahead.evaluation.scoring.faces import FaceReader, similarity
from lookahead.evaluation.scoring.text import embed_pictures, embed_texts
from lookahead.pipeline import LookaheadPipeline
from lookahead.pipeline.portraits import Boxes, FaceCheck
from lookahead.world import open_scorer

PORTRAIT = "the portrait"  # what messages call it: an upload has no name that tells anything
UNTUNED, TUNED = "untuned", "tuned"
_SHOWN = 256  # pixels, the least side of a portrait with its faces marked

Advance = Callable[[str, int, int], None]
"""Told which encoder draws, how many steps are done, and of how many."""


class Stopped(Exception):
    """The visitor pressed Stop."""


@dataclass(frozen=True)
class Sliders:
    """What the page asks for; `guidance` multiplies every guidance weight of the settings, so 1 leaves them."""

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
        """Scores and seed in a line; what a narrow page cuts off is the seed."""
        identity = "no face found" if self.identity is None else f"identity {self.identity:.2f}"
        return f"{identity}, prompt {self.prompt:.2f}, seed {self.seed}"


class Studio:
    """The world's pipelines, untuned and, where an encoder is given, tuned; and its judges.

    Attributes:
        settings: what the sliders start from.
        encoders: names of those that draw, in the order of `draw`.
    """

    def __init__(self, world: World, encoder: Path | None) -> None:
        """Open everything.

        Raises:
            InputError: a checkpoint or a file of the encoder is missing, damaged or does not fit.
        """
        self.settings, checkpoints = world.personalize, world.checkpoints
        self._pipes = {UNTUNED: LookaheadPipeline(checkpoints, self.settings, None)}
        if encoder is not None:
            self._pipes[TUNED] = LookaheadPipeline(checkpoints, self.settings, encoder)
        self.encoders = tuple(self._pipes)
        self._check = FaceCheck(checkpoints, self.settings.smallest_face)
        self._faces, self._scorer = FaceReader(checkpoints.faces), open_scorer(checkpoints)
        self._drawing = Lock()  # a pipeline draws for one visitor at a time

    @property
    def has_kv(self) -> bool:
        """Whether an encoder has keys and values to switch on and off."""
        return any(pipe.has_kv for pipe in self._pipes.values())

    def look(self, portrait: Image.Image) -> tuple[Image.Image, str]:
        """The portrait with every face that is found in a frame, and what a drawing would make of it."""
        portrait = portrait.convert("RGB")
        try:
            self._check(portrait, PORTRAIT)
            said = "One face is found: this portrait can be used."
        except InputError as error:
            said = f"This cannot be used. {error}."
        return framed(portrait, self._check.boxes(portrait)), said

    def draw(
        self, portrait: Image.Image | None, sliders: Sliders, stop: Event, advance: Advance
    ) -> Iterator[tuple[str, list[Drawn]]]:
        """Every encoder's name and pictures, one encoder after the other, with equal seeds.

        Raises:
            InputError: portrait or prompt is missing, the portrait does not show one face, or a number is out of range.
            Stopped: `stop` was set.
        """
        if portrait is None:
            raise InputError("there is no portrait: upload one, take one, or click on an example")
        if not sliders.prompt.strip():
            raise InputError("the prompt is empty: write what to draw of `a person`, or choose a style and a scene")
        square = self._check(portrait.convert("RGB"), PORTRAIT)
        for name in self.encoders:
            with self._drawing:
                if stop.is_set():
                    raise Stopped
                pictures = self._draw(name, square, sliders, stop, advance)
            yield name, self._scored(square, pictures, sliders)

    def _draw(
        self, name: str, square: Image.Image, sliders: Sliders, stop: Event, advance: Advance
    ) -> list[Image.Image]:
        pipe, settings = self._pipes[name], self.settings
        steps = settings.fast.steps if sliders.fast else settings.steps
        total, done = steps * -(-sliders.images // settings.batch), 0

        def told(step: int, t: int, latents: torch.Tensor) -> None:
            nonlocal done
            if stop.is_set():
                raise Stopped
            done += 1
            advance(name, min(done, total), total)

        weights = {part: weight * sliders.guidance for part, weight in settings.kv_guidance.model_dump().items()}
        return pipe(
            square,
            sliders.prompt,
            seed=sliders.seed,
            num_images=sliders.images,
            fast=sliders.fast,
            adapter_scale=sliders.adapter_scale,
            kv=sliders.kv,
            guidance=sliders.guidance * (settings.fast.guidance if sliders.fast else settings.guidance),
            kv_guidance=KVGuidance(**weights),
            callback=told,
        )

    def _scored(self, square: Image.Image, pictures: list[Image.Image], sliders: Sliders) -> list[Drawn]:
        reference = self._faces.read(np.asarray(square))
        text = embed_texts(self._scorer, [[sliders.prompt]]).prompts[0, 0]  # (D,)
        likeness = (embed_pictures(self._scorer, pictures) @ text).tolist()
        drawn = []
        for number, (picture, prompt) in enumerate(zip(pictures, likeness, strict=True)):
            face = self._faces.read(np.asarray(picture))
            identity = None if reference is None or face is None else similarity(face, reference, "report")
            drawn.append(Drawn(picture, sliders.seed + number, identity, prompt))
        return drawn


def framed(portrait: Image.Image, boxes: Boxes) -> Image.Image:
    """A portrait, enlarged where it is small, with a frame around every box (F, 5), as `FaceCheck` finds them."""
    factor = max(1, -(-_SHOWN // min(portrait.size)))
    large = portrait.resize((portrait.width * factor, portrait.height * factor), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(large)
    for box in boxes:
        pen.rectangle(
            [float(edge) * factor for edge in box[:4]], outline="#d4552a", width=max(2, min(large.size) // 80)
        )
    return large
