"""A cell's sampler on the one pipeline: adapter, KV-encoder, fast child and lookahead guidance come and go with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lookahead.config import Checkpoints, Sampling
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.models.fast_child import child_at, lora_layers, switch_off
from lookahead.models.kv_encoder import KV_FILE, open_kv_encoder
from lookahead.sampling.loop import Sampler, image_guidance, prepare
from lookahead.sampling.steering import Identifier, open_guide
from lookahead.world import (
    FAST_CHILD,
    Pipeline,
    attach_adapter,
    attach_fast_child,
    detach_adapter,
    detach_fast_child,
)


def kv_file(encoder: Path | None, sampling: Sampling) -> Path | None:
    """The file of the keys and values that are used, if the encoder has any."""
    path = None if encoder is None or not sampling.use_kv else encoder / KV_FILE
    return path if path is not None and path.is_file() else None


def check_encoder(encoder: Path | None) -> None:
    """Refuse the folder of an encoder that is not there.

    Raises:
        InputError: it holds no adapter.
    """
    if encoder is not None and not (encoder / ADAPTER_FILE).is_file():
        raise InputError(f"{encoder} holds no encoder: train it first (`lookahead train`)")


@contextmanager
def open_sampler(
    pipe: Pipeline,
    checkpoints: Checkpoints,
    encoder: Path | None,
    sampling: Sampling,
    identifier: Callable[[], Identifier],
) -> Iterator[Sampler]:
    """The pipeline ready to draw as `sampling` says, inside; afterwards its scheduler and U-Net are the base's again.

    Args:
        pipe: the base model, which may carry another cell's adapter.
        checkpoints: the world.
        encoder: the folder that training wrote; None is the untuned adapter.
        sampling: how to draw.
        identifier: opens what steering recognises previews by.

    Raises:
        InputError: a file of the encoder or a checkpoint is missing, damaged or does not fit.
    """
    scheduler = pipe.scheduler
    try:
        yield from _opened(pipe, checkpoints, encoder, sampling, identifier)
    finally:
        pipe.scheduler = scheduler
        detach_adapter(pipe)


def _opened(
    pipe: Pipeline,
    checkpoints: Checkpoints,
    encoder: Path | None,
    sampling: Sampling,
    identifier: Callable[[], Identifier],
) -> Iterator[Sampler]:
    steps, plain = sampling.num_inference_steps, image_guidance(sampling.guidance_scale)
    detach_adapter(pipe)
    if not sampling.adapter:
        yield prepare(pipe, sampling.scheduler, steps, 0.0, plain)
        return
    trained_kv = kv_file(encoder, sampling)
    kv = None if trained_kv is None else open_kv_encoder(trained_kv, pipe.unet)
    attach_adapter(pipe, checkpoints if encoder is None else encoder / ADAPTER_FILE)
    guidance = plain if kv is None else sampling.kv_guidance
    sampler = prepare(pipe, sampling.scheduler, steps, sampling.adapter_scale, guidance, kv)
    if not sampling.fast and sampling.steering is None:
        yield sampler
        return
    attach_fast_child(pipe, checkpoints)
    try:
        child = lora_layers(pipe.unet, FAST_CHILD)
        if sampling.steering is not None:
            switch_off(child)
            sampler = replace(sampler, steer=open_guide(pipe, child, identifier(), sampling.steering).steer)
            yield sampler
        else:
            with child_at(child, FAST_CHILD, 1.0):
                yield sampler
    finally:
        detach_fast_child(pipe)
