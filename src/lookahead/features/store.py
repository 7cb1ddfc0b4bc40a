"""Reads the features of a dataset from the disk, row by row, as they are asked for."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from lookahead.artifacts import load_tensors
from lookahead.errors import InputError
from lookahead.features.columns import Column, check_features, open_parts

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

    def __init__(self, table: FeatureTable, prompts: PromptFeatures, images: Mapping[str, Column]) -> None:
        """Hold the columns: "image_features" has a row a photo, the others a row a picture."""
        self.table = table
        self.prompts = prompts
        self._images = images
        self._photos = table.photo.long().cumsum(0) - 1  # (N,) a photo's row among the photos

    def read(self, name: str, rows: Tensor) -> Tensor:
        """Rows (B,) of "latents", "embeddings" or "landmarks", in their stored number format."""
        return self._images[name][rows]

    def latents(self, rows: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w)."""
        return self.read("latents", rows)

    def image_features(self, rows: Tensor) -> Tensor:
        """The image encoder's penultimate hidden states (B, S, D) of photos: nothing else is ever a reference."""
        assert self.table.photo[rows].all()
        return self._images["image_features"][self._photos[rows]]

    def embeddings(self, rows: Tensor) -> Tensor:
        """Unit face embeddings (B, E) by the recogniser of the lookahead loss."""
        return self.read("embeddings", rows)

    def centroids(self, rows: Tensor) -> Tensor:
        """The mean face (B, E), unit length, of all photos of each row's person."""
        return self._centroids[self.table.identity[rows]]

    @functools.cached_property
    def _centroids(self) -> Tensor:
        faces = self._images["embeddings"]
        sums = torch.zeros(int(self.table.identity.max()) + 1, *faces.shape)
        for rows, part in faces.in_parts():
            photo = self.table.photo[rows]
            sums.index_add_(0, self.table.identity[rows][photo], part[photo].float())
        return torch.nn.functional.normalize(sums, dim=1)

    def landmarks(self, rows: Tensor) -> Tensor:
        """Five landmarks (B, 5, 2) in pixels of the picture."""
        return self.read("landmarks", rows)

    def prompt_embeds(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, C) and pooled embedding (B, E) of the pictures' prompts."""
        prompts = self.table.prompt[rows]
        return self.prompts.prompt_embeds[prompts], self.prompts.pooled[prompts]


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
    images = [open_parts(path) for path in sorted((folder / IMAGES).glob("*.safetensors"))]
    rows, seen = (sum(len(part[name]) for part in images) for name in ("latents", "image_features"))
    photos = int(table.photo.sum())
    if (rows, seen) != (len(table), photos) or rows == 0:
        told = f"{len(table)} rows, {photos} of them photos, and features of {rows} and {seen}"
        raise InputError(f"{folder} has {told}: run the stage `features` again")
    check_features(folder / PROMPTS)
    columns = {name: Column([part[name] for part in images]) for name in images[0]}
    return FeatureStore(table, PromptFeatures(**load_tensors(folder / PROMPTS)[0]), columns)
