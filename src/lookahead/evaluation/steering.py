"""The steered method: the faces that its pictures aim at, and its sampler with lookahead guidance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from lookahead.artifacts import digest_paths
from lookahead.config import Checkpoints, Steering
from lookahead.errors import InputError
from lookahead.evaluation.identity import identity
from lookahead.evaluation.panel import Panel
from lookahead.models.fast_child import lora_layers, switch_off
from lookahead.portraits import read_photo
from lookahead.sampling.conditions import reference_pixels
from lookahead.sampling.loop import Sampler
from lookahead.sampling.steering import open_guide, open_identifier
from lookahead.world import FAST_CHILD, Pipeline, attach_fast_child, detach_fast_child, device


def aimed(panel: Panel, pipe: Pipeline) -> Panel:
    """The panel with everybody's face to aim at: the reference photo's by pack `loss`, at the size that is drawn.

    Raises:
        InputError: no face is found in a reference photo, or a checkpoint is missing.
    """
    identifier = open_identifier(panel.checkpoints)
    photos = [Image.fromarray(read_photo(person.reference)) for person in panel.people]
    with torch.no_grad():
        faces, found = identifier.embed(reference_pixels(pipe, photos).to(device()))
    if not found.all():
        lost = [str(person.reference) for person, seen in zip(panel.people, found.tolist(), strict=True) if not seen]
        raise InputError(
            f"no face is found by pack `loss` in the reference photo {', '.join(lost)}, at the size that pictures are "
            "drawn in: crop it to the face, or set evaluate.steering to null"
        )
    return replace(panel, conditions=replace(panel.conditions, aims=faces))


@contextmanager
def steering(sampler: Sampler, checkpoints: Checkpoints, settings: Steering) -> Iterator[Sampler]:
    """The sampler with lookahead guidance; its U-Net carries the fast child inside only.

    Raises:
        InputError: a checkpoint is missing or damaged.
    """
    pipe = sampler.pipe
    attach_fast_child(pipe, checkpoints)
    try:
        child = lora_layers(pipe.unet, FAST_CHILD)
        switch_off(child)
        yield replace(sampler, steer=open_guide(pipe, child, open_identifier(checkpoints), settings).steer)
    finally:
        detach_fast_child(pipe)


def steering_key(checkpoints: Checkpoints, settings: Steering) -> object:
    """What decides steered pictures besides what decides plain ones: the settings, and the models that steer."""
    sources = (checkpoints.fast_child, checkpoints.preview_vae, checkpoints.faces.loss)
    models = [*(identity(source) for source in sources), checkpoints.faces.detection_size]
    return [settings.model_dump(mode="json"), models, digest_paths([Path(__file__)])]
