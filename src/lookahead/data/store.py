"""Reads the features of a dataset, memory-mapped: only the rows that are asked for are loaded."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import safe_open
from torch import Tensor

from lookahead.errors import InputError
from lookahead.world.sources import check_weights

TABLE, PROMPTS, IMAGES = "table.parquet", "prompts.safetensors", "images"


@dataclass(frozen=True)
class FeatureTable:
    """A row a kept picture (N,): person, prompt (a row of the prompts), whether it is a photo, index in its dataset,
    whether that is the one of own photos."""

    identity: Tensor
    prompt: Tensor
    photo: Tensor
    index: Tensor
    own: Tensor
    style: Sequence[str]
    scene: Sequence[str]

    def __len__(self) -> int:
        """How many pictures there are."""
        return len(self.identity)


@dataclass(frozen=True)
class PromptFeatures:
    """Prompts that name no one: tokens (P, L, C), pooled (P, E), the same of no prompt (1, ...); no image (1, S, D)."""

    prompt_embeds: Tensor
    pooled: Tensor
    empty_prompt_embeds: Tensor
    empty_pooled: Tensor
    null_image_features: Tensor


class FeatureStore:
    """The features of a dataset, by row of its table."""

    def __init__(self, table: FeatureTable, prompts: PromptFeatures, images: Sequence[dict[str, Tensor]]) -> None:
        """Hold mapped tensors of consecutive rows."""
        self.table = table
        self.prompts = prompts
        self._images = images
        lengths = torch.tensor([len(part["latents"]) for part in images])
        self._ends = lengths.cumsum(0)
        self._starts = self._ends - lengths

    def read(self, name: str, rows: Tensor) -> Tensor:
        """Rows (B,) of "latents", "image_features", "embeddings" or "landmarks", in their stored number format."""
        assert rows.ndim == 1
        assert int(rows.max()) < len(self.table)
        parts = torch.searchsorted(self._ends, rows, right=True)  # (B,)
        first = self._images[0][name]
        found = torch.empty(len(rows), *first.shape[1:], dtype=first.dtype)
        for part in sorted(set(parts.tolist())):
            here = parts == part
            found[here] = self._images[part][name][rows[here] - self._starts[part]]
        return found

    def latents(self, rows: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w)."""
        return self.read("latents", rows)

    def image_features(self, rows: Tensor) -> Tensor:
        """The image encoder's penultimate hidden states (B, S, D)."""
        return self.read("image_features", rows)

    def embeddings(self, rows: Tensor) -> Tensor:
        """Unit face embeddings (B, E) by the recogniser of the lookahead loss."""
        return self.read("embeddings", rows)

    def centroids(self, rows: Tensor) -> Tensor:
        """The mean face (B, E), unit length, of all photos of each row's person."""
        return self._centroids[self.table.identity[rows]]

    @functools.cached_property
    def _centroids(self) -> Tensor:
        people = int(self.table.identity.max()) + 1
        sums = torch.zeros(people, self._images[0]["embeddings"].shape[1])
        for start, end, part in zip(self._starts.tolist(), self._ends.tolist(), self._images, strict=True):
            photo = self.table.photo[start:end]
            sums.index_add_(0, self.table.identity[start:end][photo], part["embeddings"][photo].float())
        return torch.nn.functional.normalize(sums, dim=1)

    def landmarks(self, rows: Tensor) -> Tensor:
        """Five landmarks (B, 5, 2) in pixels of the picture."""
        return self.read("landmarks", rows)

    def prompt_embeds(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, C) and pooled embedding (B, E) of the pictures' prompts."""
        prompts = self.table.prompt[rows]
        return self.prompts.prompt_embeds[prompts], self.prompts.pooled[prompts]


def _mapped(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise InputError(f"{path} is missing: run the stage `features` again")
    check_weights(path)
    handle: Any = safe_open(path, framework="pt")
    return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 (not a dict)


def _read_table(path: Path) -> FeatureTable:
    try:
        table = pq.read_table(path)
        tensors = {
            name: torch.tensor(table[name].to_numpy()) for name in ("identity", "prompt", "photo", "index", "own")
        }
        return FeatureTable(**tensors, style=table["style"].to_pylist(), scene=table["scene"].to_pylist())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error!s:.200}): run the stage `features` again") from None


def open_features(folder: Path) -> FeatureStore:
    """Open the output of the stage `features`.

    Raises:
        InputError: a file is missing, truncated or does not belong to the others.
    """
    table = _read_table(folder / TABLE)
    images = [_mapped(path) for path in sorted((folder / IMAGES).glob("*.safetensors"))]
    rows = sum(len(part["latents"]) for part in images)
    if rows != len(table) or rows == 0:
        raise InputError(f"{folder} has {len(table)} rows and features of {rows}: run the stage `features` again")
    return FeatureStore(table, PromptFeatures(**_mapped(folder / PROMPTS)), images)
