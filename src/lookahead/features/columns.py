"""Tensors of many rows in several safetensors files, of which single rows are read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lookahead.errors import InputError
from lookahead.world.hub import check_weights

_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # as safetensors names them


@dataclass(frozen=True)
class Part:
    """A tensor (N, ...) in a file, from a byte on.

    Read and not mapped: around a page that it lacks, the kernel reads megabytes where its read-ahead is large, and rows
    are asked for at random.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __len__(self) -> int:
        """How many rows there are."""
        return self.shape[0]

    def read(self, first: int, count: int) -> Tensor:
        """Rows (count, ...) from `first` on.

        Raises:
            InputError: the file has become shorter.
        """
        width = math.prod(self.shape[1:]) * self.dtype.itemsize
        content = bytearray(count * width)
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start + first * width)
            if file.readinto(content) != len(content):
                raise InputError(f"{self.path} has become shorter: run the stage `features` again")
        return torch.frombuffer(content, dtype=self.dtype).view(count, *self.shape[1:])


class Column:
    """A tensor in parts of consecutive rows, each in a file of its own."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """Hold the parts, any of which but not all may be empty."""
        self._parts = parts
        lengths = torch.tensor([len(part) for part in parts])
        self._ends = lengths.cumsum(0)
        self._starts = self._ends - lengths

    def __len__(self) -> int:
        """How many rows there are."""
        return int(self._ends[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row."""
        return self._parts[0].shape[1:]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Rows (B,) in the stored number format."""
        assert rows.ndim == 1
        assert int(rows.max()) < len(self)
        parts = torch.searchsorted(self._ends, rows, right=True)  # (B,)
        places = zip(parts.tolist(), (rows - self._starts[parts]).tolist(), strict=True)
        return torch.cat([self._parts[part].read(row, 1) for part, row in places])

    def in_parts(self) -> Iterator[tuple[slice, Tensor]]:
        """Each part and where its rows lie."""
        for start, part in zip(self._starts.tolist(), self._parts, strict=True):
            yield slice(start, start + len(part)), part.read(0, len(part))


def check_features(path: Path) -> None:
    """Check that a file of features is there and whole.

    Raises:
        InputError: it is missing or truncated.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: run the stage `features` again")
    check_weights(path)


def open_parts(path: Path) -> dict[str, Part]:
    """The tensors of a safetensors file: its header's length, the header as JSON, then the bytes that it tells of.

    Raises:
        InputError: as `check_features`.
    """
    check_features(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: Part(path, 8 + length + told["data_offsets"][0], tuple(told["shape"]), _TYPES[told["dtype"]])
        for name, told in header.items()
    }
