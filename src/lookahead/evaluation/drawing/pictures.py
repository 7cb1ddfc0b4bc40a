"""Pictures in shards of one batch each: drawn by the sampler, read back in the order of the plan."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import write_parquet
from lookahead.errors import InputError
from lookahead.evaluation.drawing.conditions import Conditions, people_of
from lookahead.evaluation.drawing.plan import Plan, Shot
from lookahead.sampling.loop import Sampler, draw


def shard_name(number: int) -> str:
    """The file of a batch's pictures, or of their scores."""
    return f"{number:05d}.parquet"


def shards_of(plan: Plan, batch_size: int) -> list[list[Shot]]:
    """The shots of each shard."""
    return [plan.shots[start : start + batch_size] for start in range(0, len(plan.shots), batch_size)]


def draw_shards(
    sampler: Sampler,
    plan: Plan,
    conditions: Conditions,
    aims: Tensor | None,
    batch_size: int,
    numbers: Sequence[int],
    folder: Path,
    label: str,
) -> None:
    """Draw some of the plan's shards into `folder`.

    Args:
        sampler: ready to draw.
        plan: the shots.
        conditions: of the plan's prompts and people.
        aims: everybody's face (P, E), where the sampler steers.
        batch_size: shots drawn at once.
        numbers: of the shards.
        folder: of these pictures alone.
        label: what the progress bar shows.
    """
    shards = shards_of(plan, batch_size)
    for number in tqdm(numbers, desc=f"drawing, {label}", unit="batch"):
        shots = shards[number]
        given, free = conditions.given(plan, shots), conditions.nothing(len(shots))
        faces = None if aims is None else aims[people_of(shots)]
        seeds = [shot.noise_seed for shot in shots]
        pixels = draw(sampler, given, free, seeds, conditions.reference(shots), faces)
        images = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        start = number * batch_size
        shard = {"index": range(start, start + len(shots)), "image": [png(Image.fromarray(image)) for image in images]}
        write_parquet(folder / shard_name(number), pa.table(shard))


def png(image: Image.Image) -> bytes:
    """A picture as PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def check_shard(path: Path) -> None:
    """Refuse a damaged shard.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is damaged ({error}): remove it, and the same command draws it again") from None


def read_shard(path: Path) -> list[Image.Image]:
    """The pictures of one shard.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        rows = pq.read_table(path)["image"].to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path} is damaged ({error}): remove it, and the same command draws it again") from None
    return [Image.open(io.BytesIO(row)).convert("RGB") for row in rows]


def read_pictures(folder: Path) -> Iterator[Image.Image]:
    """The pictures of a folder of shards, in the order of the plan.

    Raises:
        InputError: a shard is damaged.
    """
    for path in sorted(folder.glob("[0-9]*.parquet")):
        yield from read_shard(path)
