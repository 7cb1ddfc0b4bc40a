"""A step at full size on paper: its FLOP and its memory, counted on tensors that have shapes and no contents.

`python -m benchmarks.train --project` prints it. torch's FakeTensorMode runs the code that a GPU would run, with all
sizes, formats and lifetimes, without memory or arithmetic. The tensors say that they lie on a CPU, as torch without a
GPU refuses the other; where that would make a difference, `autocast_as_on_gpu` mends it. Not counted: what kernels take
for themselves (cuDNN, cuBLAS), what the allocator keeps or wastes, CUDA's own context.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.official import Official
from benchmarks.ours import Levers, Ours
from benchmarks.sdxl import Sizes
from benchmarks.train import FULL_METHOD, ROWS, figure, flop


class Held(TorchDispatchMode):
    """Follows the storages of all tensors that are made inside: each counts once, until its last tensor goes.

    What kernels take for themselves while they run, and what an allocator keeps or wastes, it cannot see.
    """

    def __init__(self) -> None:
        TorchDispatchMode.__init__(self)  # mypy takes it for untyped behind `super`
        self.now = self.peak = 0  # bytes
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count the storages that it made."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key, size).atexit = False

    def _release(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


@contextmanager
def autocast_as_on_gpu() -> Iterator[None]:
    """A GPU's autocast computes norms in float32, a CPU's does not; their results are much of what a step keeps."""

    def in_float32(operation: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def kernel(*args: Any) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                return operation(*(value.float() if isinstance(value, Tensor) else value for value in args))

        return kernel

    with torch.library._scoped_library("aten", "IMPL") as library:
        for operation in (torch.ops.aten.group_norm.default, torch.ops.aten.layer_norm.default):
            library.impl(operation, in_float32(operation), "AutocastCPU")
        yield


class Paper(FakeTensorMode):
    """Tensors with shapes and no contents, in networks that are converted and copied."""

    def dispatch(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and forget what stood for its result: torch converts no parameter that is referred to."""
        result = super().dispatch(func, types, args, kwargs)
        self.fake_tensor_converter.tensor_memo.clear()
        return result

    def __deepcopy__(self, memo: object) -> Paper:
        """A copied tensor lies on the same paper."""
        return self


class OfficialOnPaper(Official):
    """The official way without a disk, which takes no tensors without contents."""

    def save(self, tensors: dict[str, Tensor]) -> None:
        """Keep the shapes."""
        self.kept = {f"unet.{name}": (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}

    def load(self) -> dict[str, Tensor]:
        """Tensors of these shapes."""
        return {name: torch.empty(shape, dtype=kind) for name, (shape, kind) in self.kept.items()}


@contextmanager
def on_paper() -> Iterator[Held]:
    """Tensors that are made inside have no contents; what they would hold is counted."""
    with warnings.catch_warnings(), autocast_as_on_gpu(), Paper(), Held() as held:
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")  # copying a tensor asks for it
        yield held


@dataclass(frozen=True)
class Projection:
    """GiB of the weights and of the peak of a step, and FLOP an image, recomputation by checkpointing included."""

    weights: float
    peak: float
    flop: float


def project(levers: Levers, sizes: Sizes, batch: int) -> Projection:
    """The FLOP of a step, and the peak of the next, which has the optimiser's state; no LoRA is loaded in either."""
    with on_paper() as held:
        worker: Ours | Official = (OfficialOnPaper if levers.official else Ours)(sizes, batch, levers)
        weights = held.now
        if isinstance(worker, Official):
            worker.reload()
        counted = flop(lambda: worker.step(1))
        gc.collect()
        held.peak = held.now  # the counter keeps recomputed activations for longer than a step does
        worker.step(2)
    return Projection(weights / 2**30, held.peak / 2**30, counted / batch)


HEAD = """| step | TFLOP/image | ms/image at {rate:g} TFLOP/s | GiB of weights | GiB | time : full | memory : full |
|---|---:|---:|---:|---:|---:|---:|"""


def line(name: str, found: Projection, whole: Projection | None, rate: float) -> str:
    """A row of the table; `whole` is the full method's, `rate` in TFLOP/s."""
    ratios = (found.flop / whole.flop, found.peak / whole.peak) if whole else (None, None)
    work = found.flop / 1e12
    cells = [figure(work), figure(work / rate * 1e3), figure(found.weights), figure(found.peak)]
    return f"| {name} | {' | '.join([*cells, *(figure(r, '.2f') for r in ratios)])} |"


def table(rows: list[str], sizes: Sizes, batch: int, rate: float) -> None:
    """Print a projection of each row as it ends; compiled ones are left out: their memory is the compiler's."""
    print(HEAD.format(rate=rate), flush=True)
    found: dict[str, Projection] = {}
    for name in (row for row in rows if not ROWS[row].compiled):
        levers = replace(ROWS[name], precision=ROWS[name].precision or "bfloat16")
        found[name] = project(levers, sizes, levers.batch or batch)
        gc.collect()
        print(line(name, found[name], found.get(FULL_METHOD), rate), flush=True)
    left = [row for row in rows if ROWS[row].compiled]
    print(f"\nNot projected, because compiled: {'; '.join(left)}" if left else "")
