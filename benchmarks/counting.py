"""What a step costs, counted: the FLOP that it runs, and the bytes that its tensors hold."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

_ATTENTIONS = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")


def _attention_backward(
    _: object, query: Sequence[int], keys: Sequence[int], values: Sequence[int], *__: Any, **___: Any
) -> int:
    """Four products of matrices; torch also counts a fifth, the scores, which fused kernels compute a second time."""
    return 2 * sdpa_flop_count(query, keys, values)


def flop(step: Callable[[], object]) -> int:
    """FLOP of all matrix products, convolutions and attentions in a step, forward and backward; slows it down.

    A second computation by gradient checkpointing counts, one inside an attention's kernel does not.
    """
    names = (getattr(torch.ops.aten, f"_scaled_dot_product_{kind}_backward") for kind in _ATTENTIONS)
    with FlopCounterMode(display=False, custom_mapping=dict.fromkeys(names, _attention_backward)) as counter:
        step()
    return int(counter.get_total_flops())


class Held(TorchDispatchMode):
    """Follows the storages of all tensors that are made inside: each counts once, until its last tensor goes.

    What kernels take for themselves while they run, and what an allocator keeps or wastes, it cannot see.
    """

    def __init__(self) -> None:
        """Nothing is held yet."""
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
