"""The pictures of a method: drawn in batches and kept in shards, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import write_parquet
from lookahead.errors import InputError
from lookahead.evaluation.plan import Plan, Shot
from lookahead.sampling.conditions import Condition, Prompt, Reference
from lookahead.sampling.loop import Sampler, draw
from lookahead.world.processes import launched


@dataclass(frozen=True)
class Conditions:
    """The conditions of every prompt and person, computed once.

    `prompts` (S·C, ...) are in the order of the plan's; `image` (P, S, D) and `latents` (P, C, h, w) are of the
    reference photos; `free` (1, ...) is the unconditional one; `aims` (P, E), where there are any, are the faces that
    pictures are steered to.
    """

    prompts: Prompt
    image: Tensor
    free: Condition
    latents: Tensor
    aims: Tensor | None = None

    def given(self, plan: Plan, shots: list[Shot]) -> Condition:
        """The conditions of some shots."""
        prompt = torch.tensor([plan.prompt_number(shot) for shot in shots])
        return Condition(self.prompts.map(lambda every: every[prompt]), self.image[self._people(shots)])

    def reference(self, shots: list[Shot]) -> Reference:
        """What the KV-encoder sees in some shots: the photo, and the prompt of a photo in the first scene."""
        plain = self.prompts.map(lambda every: every[:1].expand(len(shots), *every.shape[1:]))
        return Reference(self.latents[self._people(shots)], plain)

    def aimed_at(self, shots: list[Shot]) -> Tensor | None:
        """The faces (B, E) that some shots are steered to, where there are aims."""
        return None if self.aims is None else self.aims[self._people(shots)]

    def alone(self, people: list[int]) -> Condition:
        """The reference of some people, with the prompt of a photo in the first scene."""
        plain = self.prompts.map(lambda every: every[:1].expand(len(people), *every.shape[1:]))
        return Condition(plain, self.image[torch.tensor(people)])

    def nothing(self, count: int) -> Condition:
        """The unconditional one, `count` times."""
        return self.free.map(lambda one: one.expand(count, *one.shape[1:]))

    def _people(self, shots: list[Shot]) -> Tensor:
        return torch.tensor([shot.person for shot in shots])


def shards_of(plan: Plan, batch: int) -> list[str]:
    """The names of the files that hold a plan's pictures, one a batch."""
    return [f"{number:05d}.parquet" for number in range(-(-len(plan.shots) // batch))]


def lacking(plan: Plan, batch: int, folder: Path) -> list[int]:
    """The numbers of the shards that are this process's and not yet there."""
    names = enumerate(shards_of(plan, batch))
    return [number for number, name in names if launched().mine(number) and not (folder / name).exists()]


def draw_pictures(sampler: Sampler, plan: Plan, conditions: Conditions, batch: int, folder: Path, label: str) -> None:
    """Draw every shot of the plan into shards `<folder>/00000.parquet`, one a batch; shards that exist are kept.

    Of several processes each draws the shards whose number is its own modulo their number.

    Args:
        sampler: ready to draw, with the method's adapter.
        plan: the shots.
        conditions: of the plan's prompts and people.
        batch: shots drawn at once.
        folder: for these pictures alone.
        label: what the progress bar shows.
    """
    if launched().count == 1:  # else another process may be writing
        for stray in folder.glob(".*"):  # what a killed run had half written
            stray.unlink()
    names, missing = shards_of(plan, batch), lacking(plan, batch, folder)
    with tqdm(total=len(names), initial=len(names) - len(missing), desc=f"drawing, {label}", unit="batch") as bar:
        for number in missing:
            start = number * batch
            shots = plan.shots[start : start + batch]
            seeds = [shot.seed for shot in shots]
            given, free = conditions.given(plan, shots), conditions.nothing(len(shots))
            pixels = draw(sampler, given, free, seeds, conditions.reference(shots), conditions.aimed_at(shots))
            write_parquet(folder / names[number], _shard(range(start, start + len(shots)), pixels))
            bar.update()


def _shard(indices: range, pixels: Tensor) -> pa.Table:
    images = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return pa.table({"index": list(indices), "image": [png(Image.fromarray(image)) for image in images]})


def png(image: Image.Image) -> bytes:
    """A picture as PNG bytes."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def read_pictures(folder: Path) -> Iterator[Image.Image]:
    """The pictures of a method in the order of the plan.

    Raises:
        InputError: a shard is damaged.
    """
    for path in sorted(folder.glob("[0-9]*.parquet")):
        try:
            rows = pq.read_table(path)["image"].to_pylist()
        except (pa.ArrowException, OSError, KeyError) as error:
            raise InputError(
                f"{path} is damaged ({error}): remove `state/pictures`, and the same command draws them again"
            ) from None
        yield from (Image.open(io.BytesIO(row)).convert("RGB") for row in rows)
