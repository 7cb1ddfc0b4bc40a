"""The key of a cell's pictures: all that decides them, so that what is cached is never another cell's."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from lookahead.artifacts import STATE, code_digest, digest, digest_paths
from lookahead.config import Checkpoints, Sampling
from lookahead.evaluation.drawing.plan import Plan
from lookahead.evaluation.drawing.samplers import kv_file
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.world import device

CACHE = STATE / "pictures"
CODE = ("evaluation/drawing", "method", "models", "portraits.py", "sampling", "world")  # what can change a picture
_LIBRARIES = ("torch", "diffusers", "transformers", "peft")


def checkpoint_digest(source: str | None) -> str | None:
    """The digest of a local folder or file, else the hub's name itself: two machines agree on both.

    Raises:
        InputError: a file cannot be read.
    """
    path = Path((source or "").removeprefix("local-dir:"))
    return digest_paths([path]) if source and path.exists() else source


def world_digest(checkpoints: Checkpoints) -> str:
    """What decides the pictures of a world besides encoder and sampler: its models and the code.

    Raises:
        InputError: a file of a checkpoint cannot be read.
    """
    sources = (checkpoints.base, checkpoints.vae, checkpoints.image_encoder.source)
    form = [checkpoints.image_encoder.subfolder, checkpoints.precision, checkpoints.resolution, device().type]
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
        sources.append(checkpoints.fast_child)
    if sampling.steering is not None:
        sources += [checkpoints.preview_vae, checkpoints.faces.loss, str(checkpoints.faces.detection_size)]
    return [sampling.model_dump(mode="json"), *(checkpoint_digest(source) for source in sources)]


def picture_key(world: str, references: str, plan: Plan, batch_size: int, cell: object) -> str:
    """The name of the folder that keeps a cell's pictures.

    Args:
        world: `world_digest`.
        references: the digest of the reference photos.
        plan: prompts and noise.
        batch_size: which rounds.
        cell: `encoder_digest` and `sampler_digest`.
    """
    shots = [(plan.prompts[plan.style_number(s)][plan.scene_number(s)], s.person, s.noise_seed) for s in plan.shots]
    plain = plan.prompts[0][0]  # the KV-encoder's prompt of a reference
    return digest(world, references, shots, plain, batch_size, cell)[:32]
