"""Reads the features of a dataset from the disk, row by row, as they are asked for."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

from lookahead.errors import InputError

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
    style: NDArray[np.str_]
    scene: NDArray[np.str_]

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


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is missing, truncated or damaged ({error}): run the stage `features` again") from None


class _Column:
    """A tensor in parts of consecutive rows, each in a file of its own, of which the rows asked for are read."""

    def __init__(self, name: str, files: Sequence[Path], lengths: Sequence[int]) -> None:
        self._name, self._files = name, files
        self._ends = torch.tensor(lengths).cumsum(0)
        self._starts = self._ends - torch.tensor(lengths)

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Rows (B,) in the stored number format."""
        parts = torch.searchsorted(self._ends, rows, right=True)  # (B,)
        out: Tensor | None = None
        for part in parts.unique().tolist():
            wanted = torch.nonzero(parts == part).squeeze(1)
            with _open(self._files[part]) as file:
                column = file.get_slice(self._name)
                for i, row in zip(wanted.tolist(), (rows[wanted] - self._starts[part]).tolist(), strict=True):
                    value = column[row : row + 1]
                    out = value.new_empty(len(rows), *value.shape[1:]) if out is None else out
                    out[i] = value[0]
        assert out is not None
        return out

    def parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Each file's tensor and its rows."""
        for start, end, path in zip(self._starts.tolist(), self._ends.tolist(), self._files, strict=True):
            with _open(path) as file:
                yield slice(start, end), file.get_tensor(self._name)


class FeatureStore:
    """The features of a dataset, by row of its table."""

    def __init__(self, table: FeatureTable, prompts: PromptFeatures, files: Sequence[Path]) -> None:
        """Look into each file: "image_features" has a row a photo, the others a row a picture."""
        self.table, self.prompts = table, prompts
        self._photos = table.photo.long().cumsum(0) - 1  # (N,) a photo's row among the photos
        lengths: dict[str, list[int]] = {}
        for path in files:
            with _open(path) as file:
                for name in file.keys():  # noqa: SIM118
                    lengths.setdefault(name, []).append(file.get_slice(name).get_shape()[0])
        self._columns = {name: _Column(name, files, counts) for name, counts in lengths.items()}
        self.counts = {name: sum(counts) for name, counts in lengths.items()}

    def latents(self, rows: Tensor) -> Tensor:
        """Scaled latents (B, C, h, w) of rows (B,), like all features in their stored number format."""
        return self._columns["latents"][rows]

    def image_features(self, rows: Tensor) -> Tensor:
        """The image encoder's penultimate hidden states (B, S, D) of photos: nothing else is ever a reference."""
        assert self.table.photo[rows].all()
        return self._columns["image_features"][self._photos[rows]]

    def embeddings(self, rows: Tensor) -> Tensor:
        """Unit face embeddings (B, E) by the recogniser of the lookahead loss."""
        return self._columns["embeddings"][rows]

    def landmarks(self, rows: Tensor) -> Tensor:
        """Five landmarks (B, 5, 2) in pixels of the picture."""
        return self._columns["landmarks"][rows]

    def centroids(self, rows: Tensor) -> Tensor:
        """The mean face (B, E), unit length, of all photos of each row's person."""
        return self._centroids[self.table.identity[rows]]

    @functools.cached_property
    def _centroids(self) -> Tensor:
        sums: Tensor | None = None
        for rows, part in self._columns["embeddings"].parts():
            photo = self.table.photo[rows]
            sums = torch.zeros(int(self.table.identity.max()) + 1, part.shape[1]) if sums is None else sums
            sums.index_add_(0, self.table.identity[rows][photo], part[photo].float())
        assert sums is not None
        return torch.nn.functional.normalize(sums, dim=1)

    def prompt_embeds(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, C) and pooled embedding (B, E) of the pictures' prompts."""
        prompts = self.table.prompt[rows]
        return self.prompts.prompt_embeds[prompts], self.prompts.pooled[prompts]


def open_features(folder: Path) -> FeatureStore:
    """Open the output of the stage `features`; a missing, truncated or strange file is an `InputError`."""
    path = folder / TABLE
    try:
        rows = pq.read_table(path)
        tensors = {
            name: torch.tensor(rows[name].to_numpy()) for name in ("identity", "prompt", "photo", "index", "own")
        }
        style, scene = (rows[name].to_numpy().astype(np.str_) for name in ("style", "scene"))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error!s:.200}): run the stage `features` again") from None
    table = FeatureTable(**tensors, style=style, scene=scene)
    with _open(folder / PROMPTS) as file:
        prompts = PromptFeatures(**{name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    store = FeatureStore(table, prompts, sorted((folder / IMAGES).glob("*.safetensors")))
    found, photos = [store.counts.get(name, 0) for name in ("latents", "image_features")], int(table.photo.sum())
    if found != [len(table), photos] or not len(table):
        raise InputError(
            f"{folder} has {len(table)} rows, {photos} of them photos, and features of {found[0]} and {found[1]}: "
            "run the stage `features` again"
        )
    return store
