"""Whatever drawing and judging need besides pictures: conditions, samplers, judges."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from PIL import Image

from lookahead.config import Checkpoints, Evaluate
from lookahead.dataset.prompts import read_prompts
from lookahead.evaluation.faces import FaceReader, read_others, read_references
from lookahead.evaluation.measure import Judges, measure
from lookahead.evaluation.pictures import Conditions, draw_pictures, lacking, read_pictures
from lookahead.evaluation.plan import Plan, make_plan
from lookahead.evaluation.scoring import embed_texts
from lookahead.evaluation.store import shelf, take
from lookahead.evaluation.tables import as_table
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.models.kv_encoder import KV_FILE, open_kv_encoder
from lookahead.portraits import Person, read_people, read_photo
from lookahead.sampling.conditions import Condition, embed_prompts, encode_photos, reference_latents
from lookahead.sampling.loop import Sampler, image_guidance, prepare
from lookahead.world import Pipeline, attach_adapter, detach_adapter, open_image_encoder, open_scorer


@dataclass(frozen=True)
class Panel:
    """People, prompts, judges and conditions, opened once: the same for every encoder."""

    checkpoints: Checkpoints
    protocol: Evaluate
    people: list[Person]
    plan: Plan
    judges: Judges
    conditions: Conditions

    def shelf(self, store: Path, adapter: object, fast_steps: int | None = None) -> Path:
        """Where `store` keeps the pictures of an adapter (`evaluation.store.shelf`)."""
        return shelf(store, self.checkpoints, self.protocol, self.people, self.plan, adapter, fast_steps)


def open_panel(checkpoints: Checkpoints, protocol: Evaluate, pipe: Pipeline) -> Panel:
    """Open whatever judging needs besides an encoder.

    Raises:
        InputError: portraits, prompts or a checkpoint are missing or wrong, or a reference photo shows no face.
    """
    people = read_people(Path(protocol.portraits), protocol.people)
    plan = make_plan(read_prompts(protocol.prompts), protocol)
    judges = open_judges(checkpoints, people, plan)
    conditions = encode_conditions(checkpoints, pipe, people, plan)
    return Panel(checkpoints, protocol, people, plan, judges, conditions)


def fill(panel: Panel, ready: Callable[[], AbstractContextManager[Sampler]], name: str, place: Path) -> None:
    """Draw what the shelf `place` lacks of this process's share; the sampler is opened only where something is.

    Raises:
        InputError: a checkpoint is damaged, or the disk is full.
    """
    if lacking(panel.plan, panel.protocol.batch, place):
        with ready() as sampler:
            draw_pictures(sampler, panel.plan, panel.conditions, panel.protocol.batch, place, name)


def draw_once(
    panel: Panel, ready: Callable[[], AbstractContextManager[Sampler]], name: str, place: Path, folder: Path
) -> None:
    """Put every shot's picture into `folder`; those that the shelf `place` holds are not drawn again.

    Args:
        panel: people and prompts.
        ready: opens the sampler, only where pictures are missing.
        name: of the method, for the progress bar.
        place: the shelf.
        folder: receives the pictures.

    Raises:
        InputError: a shard is damaged, or the disk is full.
    """

    take(place, panel.plan, panel.protocol.batch, partial(fill, panel, ready, name), folder)


def judged(panel: Panel, name: str, folder: Path) -> pd.DataFrame:
    """One row for every picture in `folder`, which holds all shots, with `name` as its method."""
    return as_table(measure(name, panel.plan, read_pictures(folder), panel.judges, panel.protocol.batch))


def open_judges(checkpoints: Checkpoints, people: list[Person], plan: Plan) -> Judges:
    """The recognisers and CLIP, with the faces and captions that pictures are compared to.

    Raises:
        InputError: a reference photo shows no face, or a checkpoint is missing.
    """
    faces, scorer = FaceReader(checkpoints.faces), open_scorer(checkpoints)
    references = read_references(faces, people)
    return Judges(faces, references, read_others(faces, people), scorer, embed_texts(scorer, plan.prompts))


def open_sampler(
    checkpoints: Checkpoints, pipe: Pipeline, settings: Evaluate, encoder: Path | None, keys_values: bool = True
) -> Sampler:
    """The pipeline with a trained encoder, the folder that training wrote, or with the untuned adapter.

    An encoder's keys and values, if it has any, are left out where `keys_values` is false.

    Raises:
        InputError: a file of the encoder is damaged or does not fit.
    """
    trained_kv = encoder / KV_FILE if encoder is not None and keys_values else None
    detach_adapter(pipe)
    kv = open_kv_encoder(trained_kv, pipe.unet) if trained_kv is not None and trained_kv.is_file() else None
    attach_adapter(pipe, checkpoints if encoder is None else encoder / ADAPTER_FILE)
    guidance = image_guidance(settings.guidance) if kv is None else settings.kv_guidance
    return prepare(pipe, settings.sampler, settings.steps, settings.adapter_scale, guidance, kv)


def open_base(pipe: Pipeline, settings: Evaluate) -> Sampler:
    """The pipeline without any image adapter: the base model, which sees the prompt alone."""
    detach_adapter(pipe)
    return prepare(pipe, settings.sampler, settings.steps, 0.0, image_guidance(settings.guidance))


def encode_conditions(checkpoints: Checkpoints, pipe: Pipeline, people: list[Person], plan: Plan) -> Conditions:
    """Everything that the U-Net and the KV-encoder are told of every person and prompt.

    A portrait's scene is not known: the KV-encoder is told the first one, in the plain style.
    """
    prompts, free = embed_prompts(pipe, [prompt for row in plan.prompts for prompt in row])
    photos = [Image.fromarray(read_photo(person.reference)) for person in people]
    image, free_image = encode_photos(*open_image_encoder(checkpoints), photos)
    return Conditions(prompts, image, Condition(free, free_image), reference_latents(pipe, photos))
