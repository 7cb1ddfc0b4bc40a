"""Reads the features of a dataset from the disk, row by row, as they are asked for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lookahead.artifacts import load_tensors
from lookahead.errors import InputError

TABLE, PROMPTS, IMAGES = "table.parquet", "prompts.safetensors", "images"


@dataclass(frozen=True)
class FeatureTable:
    """Of each kept picture (N,): person, prompt (a row of the prompts), whether it is a photo, index in its dataset,
    whether that is the one of own photos, style and scene."""

    identity: Tensor
    prompt: Tensor
    photo: Tensor
    index: Tensor
    own: Tensor
    style: NDArray[np.str_]
    scene: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.identity)


@dataclass(frozen=True)
class PromptFeatures:
    """Prompts that name no one: tokens (P, L, C), pooled (P, E), the same of no prompt (1, ...); no image (1, S, D)."""

    prompt_embeds: Tensor
    pooled: Tensor
    empty_prompt_embeds: Tensor
    empty_pooled: Tensor
    null_image_features: Tensor


class _Column:
    """A tensor in slices of consecutive rows, each in an open file: what is asked for is read, in the stored dtype."""

    def __init__(self, files: Sequence[Any], name: str) -> None:
        self.slices = [file.get_slice(name) for file in files]
        self.sizes = [part.get_shape()[0] for part in self.slices]
        self._ends = torch.tensor(self.sizes).cumsum(0)
        self._starts = self._ends - torch.tensor(self.sizes)

    def __getitem__(self, rows: Tensor) -> Tensor:
        parts = torch.searchsorted(self._ends, rows, right=True)  # (B,)
        places = zip(parts.tolist(), (rows - self._starts[parts]).tolist(), strict=True)
        return torch.cat([self.slices[part][row : row + 1] for part, row in places])


class FeatureStore:
    """The features of a dataset, by rows (B,) of its table."""

    def __init__(self, table: FeatureTable, prompts: PromptFeatures, files: Sequence[Any]) -> None:
        """Hold open safetensors files: "image_features" has a row a photo, the others a row a picture."""
        self.table, self.prompts = table, prompts
        self._images = {n: _Column(files, n) for n in ("latents", "embeddings", "landmarks", "image_features")}
        self._photos = table.photo.long().cumsum(0) - 1  # (N,) a photo's row among the photos
        expected = [len(table), int(table.photo.sum())]
        if [sum(self._images[name].sizes) for name in ("latents", "image_features")] != expected or not len(table):
            raise InputError(f"{expected[0]} rows, {expected[1]} of them photos, do not fit the files of features")

    def latents(self, rows: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w)."""
        return self._images["latents"][rows]

    def embeddings(self, rows: Tensor) -> Tensor:
        """Unit face embeddings (B, E) by the recogniser of the lookahead loss."""
        return self._images["embeddings"][rows]

    def landmarks(self, rows: Tensor) -> Tensor:
        """Five landmarks (B, 5, 2) in pixels of the picture."""
        return self._images["landmarks"][rows]

    def image_features(self, rows: Tensor) -> Tensor:
        """The image encoder's penultimate hidden states (B, S, D) of photos: nothing else is ever a reference."""
        assert self.table.photo[rows].all()
        return self._images["image_features"][self._photos[rows]]

    def prompt_embeds(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, C) and pooled embedding (B, E) of the pictures' prompts."""
        prompts = self.table.prompt[rows]
        return self.prompts.prompt_embeds[prompts], self.prompts.pooled[prompts]

    def centroids(self, rows: Tensor) -> Tensor:
        """The mean face (B, E), unit length, of all photos of each row's person."""
        return self._centroids[self.table.identity[rows]]

    @functools.cached_property
    def _centroids(self) -> Tensor:
        faces, table = self._images["embeddings"], self.table
        sums = torch.zeros(int(table.identity.max()) + 1, faces.slices[0].get_shape()[1])
        columns = (faces.slices, table.identity.split(faces.sizes), table.photo.split(faces.sizes))
        for part, identity, photo in zip(*columns, strict=True):
            sums.index_add_(0, identity[photo], part[:][photo].float())
        return torch.nn.functional.normalize(sums, dim=1)


def open_features(folder: Path) -> FeatureStore:
    """Open the output of the stage `features`; a missing, truncated or strange file is an `InputError`."""
    try:
        rows = pq.read_table(folder / TABLE)
        tensors = {
            name: torch.tensor(rows[name].to_numpy()) for name in ("identity", "prompt", "photo", "index", "own")
        }
        style, scene = (rows[name].to_numpy().astype(np.str_) for name in ("style", "scene"))
        table = FeatureTable(**tensors, style=style, scene=scene)
        prompts = PromptFeatures(**load_tensors(folder / PROMPTS)[0])
        files = [safe_open(path, framework="pt") for path in sorted((folder / IMAGES).glob("*.safetensors"))]
        return FeatureStore(table, prompts, files)
    except (pa.ArrowException, SafetensorError, OSError, KeyError, InputError) as error:
        raise InputError(f"{folder} cannot be read ({error!s:.200}): run the stage `features` again") from None
