"""A cell's sampler on the one pipeline, and the key of its pictures, so that what is cached is never another cell's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from lookahead import world
from lookahead.artifacts import code_digest, digest, digest_paths
from lookahead.config import Checkpoints, Sampling
from lookahead.evaluation.pictures import Plan
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.models.fast_child import child_at, lora_layers, switch_off
from lookahead.models.kv_encoder import KV_FILE, open_kv_encoder
from lookahead.sampling.loop import Sampler, image_guidance, prepare
from lookahead.sampling.steering import Identifier, open_guide

CODE = (
    "evaluation/pictures.py",
    "evaluation/samplers.py",
    "method",
    "models",
    "portraits.py",
    "sampling",
    "world",
)  # what can change a picture
_LIBRARIES = ("torch", "diffusers", "transformers", "peft")


def kv_file(encoder: Path | None, sampling: Sampling) -> Path | None:
    """The file of the keys and values that are used, if the encoder has any."""
    path = None if encoder is None or not sampling.use_kv else encoder / KV_FILE
    return path if path is not None and path.is_file() else None


@contextmanager
def open_sampler(
    pipe: world.Pipeline,
    checkpoints: Checkpoints,
    encoder: Path | None,
    sampling: Sampling,
    identifier: Callable[[], Identifier],
) -> Iterator[Sampler]:
    """The pipeline ready to draw as `sampling` says, inside; afterwards its scheduler and U-Net are the base's again.

    `encoder` is the folder that training wrote, None the untuned adapter; `identifier` is called for steering only.
    """
    steps, plain = sampling.num_inference_steps, image_guidance(sampling.guidance_scale)
    with ExitStack() as restoring:
        restoring.callback(world.detach_adapter, pipe)
        restoring.callback(setattr, pipe, "scheduler", pipe.scheduler)
        world.detach_adapter(pipe)
        if not sampling.adapter:
            yield prepare(pipe, sampling.scheduler, steps, 0.0, plain)
            return
        trained_kv = kv_file(encoder, sampling)
        kv = None if trained_kv is None else open_kv_encoder(trained_kv, pipe.unet)
        world.attach_adapter(pipe, checkpoints if encoder is None else encoder / ADAPTER_FILE)
        guidance = plain if kv is None else sampling.kv_guidance
        trailing = sampling.fast and checkpoints.fast_child.timesteps is not None
        sampler = prepare(pipe, sampling.scheduler, steps, sampling.adapter_scale, guidance, kv, trailing)
        if sampling.fast or sampling.steering is not None:
            world.attach_fast_child(pipe, checkpoints)
            restoring.callback(world.detach_fast_child, pipe)
            child = lora_layers(pipe.unet, world.FAST_CHILD)
            if sampling.steering is not None:
                switch_off(child)
                sampler = replace(sampler, steer=open_guide(pipe, child, identifier(), sampling.steering).steer)
            else:
                restoring.enter_context(child_at(child, world.FAST_CHILD, 1.0))
        yield sampler


def checkpoint_digest(source: str | None) -> str | None:
    """The digest of a local folder or file, else the hub's name itself: two machines agree on both."""
    path = Path((source or "").removeprefix("local-dir:"))
    return digest_paths([path]) if source and path.exists() else source


def world_digest(checkpoints: Checkpoints) -> str:
    """What decides the pictures of a world besides encoder and sampler: its models and the code."""
    sources = (checkpoints.base, checkpoints.vae, checkpoints.image_encoder.source)
    precision, size = str(world.dtype(checkpoints)), checkpoints.resolution
    form = [checkpoints.image_encoder.subfolder, precision, size, world.device().type]
    libraries = {name: version(name) for name in _LIBRARIES}
    return digest([checkpoint_digest(source) for source in sources], form, code_digest(*CODE), libraries)


def encoder_digest(checkpoints: Checkpoints, encoder: Path | None, sampling: Sampling) -> object:
    """What decides an adapter's pictures: its files, with keys and values if they are used; None is the untuned one."""
    if not sampling.adapter:
        return "base"
    if encoder is None:
        adapter = checkpoints.adapter
        return [checkpoint_digest(adapter.source), adapter.model_dump(mode="json", exclude={"source"})]
    kv = kv_file(encoder, sampling)
    return digest_paths([encoder / ADAPTER_FILE, *([] if kv is None else [kv])])


def sampler_digest(checkpoints: Checkpoints, sampling: Sampling) -> list[object]:
    """What decides how a sampler draws: its settings, and the fast child and the models that steer, if it uses them."""
    sources: list[str | None] = []
    if sampling.fast or sampling.steering is not None:
        sources.append(checkpoints.fast_child.source)
    if sampling.steering is not None:
        sources += [checkpoints.preview_vae, checkpoints.faces.loss, str(checkpoints.faces.detection_size)]
    return [sampling.model_dump(mode="json"), *(checkpoint_digest(source) for source in sources)]


def picture_key(models: str, references: str, plan: Plan, batch_size: int, cell: object) -> str:
    """The name of the folder that keeps a cell's pictures; the batch size is in it because it rounds.

    `models` is `world_digest`, `references` the digest of the reference photos, `cell` has `encoder_digest` and
    `sampler_digest`.
    """
    shots = [(plan.prompts[shot.asked], shot.person, shot.noise_seed) for shot in plan.shots]
    return digest(models, references, shots, plan.plain, batch_size, cell)[:32]
