"""Pictures drawn already: kept under the hash of all that decides them, so that judging anew draws nothing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import lookahead
from lookahead.artifacts import STATE, atomic, digest, digest_paths, files_below
from lookahead.config import Checkpoints, Evaluate
from lookahead.errors import InputError
from lookahead.evaluation.identity import identity
from lookahead.evaluation.pictures import shards_of
from lookahead.evaluation.plan import Plan
from lookahead.locks import alone
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.models.kv_encoder import KV_FILE
from lookahead.portraits import Person
from lookahead.world import device
from lookahead.world.processes import await_files

STORE = STATE / "pictures"
NO_ADAPTER = "none"  # the key of the base model alone
_SAMPLER = {"sampler", "steps", "guidance", "kv_guidance", "adapter_scale", "batch"}
_CODE = ("method", "models", "sampling", "world", "evaluation/pictures.py")  # what can change a picture
_LIBRARIES = ("torch", "diffusers", "transformers", "peft")


def shelf(
    store: Path,
    checkpoints: Checkpoints,
    settings: Evaluate,
    people: list[Person],
    plan: Plan,
    adapter: object,
    fast_steps: int | None,
) -> Path:
    """The folder of one adapter's pictures, named by everything that they depend on; judges do not count.

    Args:
        store: the folder of all shelves.
        checkpoints: the world.
        settings: sampler and batch, which rounds.
        people: whose reference photos are shown to the encoder.
        plan: prompts and noise.
        adapter: what `adapter_key` tells of it, or NO_ADAPTER.
        fast_steps: of the fast child; None is full sampling.

    Raises:
        InputError: a file of the encoder or of a checkpoint cannot be read.
    """
    key = digest(
        settings.model_dump(mode="json", include=_SAMPLER),
        [(plan.prompts[plan.style_number(s)][plan.scene_number(s)], s.person, s.seed) for s in plan.shots],
        plan.prompts[0][0],  # what the KV-encoder is told of a reference
        [digest_paths([person.reference]) for person in people],
        adapter,
        _parts(checkpoints),
        None if fast_steps is None else [fast_steps, identity(checkpoints.fast_child)],
        [digest_paths(_code()), {name: version(name) for name in _LIBRARIES}, device().type],
    )
    return store / key[:32]


def adapter_key(checkpoints: Checkpoints, encoder: Path | None, keys_values: bool = True) -> object:
    """What decides an adapter's pictures: its files, with or without keys and values; None is the untuned one."""
    if encoder is None:
        return [identity(checkpoints.adapter.source), checkpoints.adapter.subfolder, checkpoints.adapter.weight_name]
    kv = [encoder / KV_FILE] if keys_values and (encoder / KV_FILE).is_file() else []
    return digest_paths([encoder / ADAPTER_FILE, *kv])


def _parts(checkpoints: Checkpoints) -> list[object]:
    sources = (checkpoints.base, checkpoints.vae, checkpoints.image_encoder.source)
    form = [checkpoints.image_encoder.subfolder, checkpoints.precision, checkpoints.resolution]
    return [*(identity(source) for source in sources), *form]


def _code() -> list[Path]:
    package = Path(lookahead.__file__).parent
    return [file for part in _CODE for file in files_below(package / part) if file.suffix == ".py"]


def take(folder: Path, plan: Plan, batch: int, draw: Callable[[Path], None], out: Path) -> None:
    """Let `draw` fill a shelf where it lacks pictures, then copy it to `out`: the output is nobody else's file.

    Processes that want the same shelf wait for each other, so that nothing is drawn twice; those of one launch do not,
    as each draws a share.

    Raises:
        InputError: a file cannot be written, or a shard of the shelf is damaged.
    """
    names = shards_of(plan, batch)
    with alone(folder / "lock"):
        draw(folder)
        await_files(folder / name for name in names)
    for name in names:
        _check(folder / name)
        with atomic(out / name) as path:
            shutil.copyfile(folder / name, path)


def _check(shard: Path) -> None:
    try:
        pq.read_metadata(shard)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{shard} is damaged ({error}): remove it, and the same command draws it again") from None
