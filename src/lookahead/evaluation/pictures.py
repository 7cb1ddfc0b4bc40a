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
from lookahead.config import Evaluate
from lookahead.errors import InputError
from lookahead.evaluation.plan import Plan, Shot
from lookahead.evaluation.sampling import Condition, draw
from lookahead.world import Pipeline


@dataclass(frozen=True)
class Conditions:
    """The conditions of every prompt and person, computed once; `free_*` are the unconditional ones, (1, ...) each.

    `text` (S·C, L, D) and `pooled` (S·C, P) are in the order of the plan's prompts; `image` is (P, T, D).
    """

    text: Tensor
    pooled: Tensor
    image: Tensor
    free_text: Tensor
    free_pooled: Tensor
    free_image: Tensor

    def given(self, plan: Plan, shots: list[Shot]) -> Condition:
        """The conditions of some shots."""
        prompt = torch.tensor([plan.prompt_number(shot) for shot in shots])
        person = torch.tensor([shot.person for shot in shots])
        return Condition(self.text[prompt], self.pooled[prompt], self.image[person])

    def free(self, count: int) -> Condition:
        """The unconditional ones, `count` times."""
        parts = (self.free_text, self.free_pooled, self.free_image)
        return Condition(*(part.expand(count, *part.shape[1:]) for part in parts))


def draw_pictures(pipe: Pipeline, plan: Plan, conditions: Conditions, settings: Evaluate, folder: Path) -> None:
    """Draw every shot of the plan into shards `<folder>/00000.parquet`, one a batch; shards that exist are kept.

    Args:
        pipe: a prepared pipeline with the method's adapter.
        plan: the shots.
        conditions: of the plan's prompts and people.
        settings: batch, steps, guidance.
        folder: the method's own; its name is shown on the progress bar.
    """
    for stray in folder.glob(".*"):  # what a killed run had half written
        stray.unlink()
    with tqdm(total=len(plan.shots), desc=f"drawing, {folder.name}", unit="picture") as bar:
        for number, start in enumerate(range(0, len(plan.shots), settings.batch)):
            shots = plan.shots[start : start + settings.batch]
            path = folder / f"{number:05d}.parquet"
            if not path.exists():
                seeds = [shot.seed for shot in shots]
                pixels = draw(pipe, conditions.given(plan, shots), conditions.free(len(shots)), seeds, settings)
                write_parquet(path, _shard(range(start, start + len(shots)), pixels))
            bar.update(len(shots))


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
                f"{path} is damaged ({error}): remove it, and `lookahead evaluate` draws it again"
            ) from None
        yield from (Image.open(io.BytesIO(row)).convert("RGB") for row in rows)
