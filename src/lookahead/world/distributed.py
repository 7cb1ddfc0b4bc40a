"""The device, the precision, and the processes of one `accelerate launch`: every one runs the same function (SPMD)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, reduce
from torch import Tensor

from lookahead.config import Checkpoints
from lookahead.errors import InputError

T = TypeVar("T")
_TIMEOUT = timedelta(days=7)  # a process may draw for hours longer than another


def _select_gpu() -> None:
    """Let this process see one GPU only, so that torch and onnxruntime use the same one; before CUDA is initialised."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = named.split(",") if named else [str(index) for index in range(torch.cuda.device_count())]
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[int(os.environ.get("LOCAL_RANK", "0")) % len(visible)]


@cache
def distributed() -> PartialState:
    """accelerate's state: `process_index`, `num_processes`, `is_main_process`; made once, before CUDA is used."""
    _select_gpu()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return PartialState()
    on_cpu = not torch.cuda.is_available()  # accelerate must be told, or without a GPU each process is the only one
    return PartialState(cpu=on_cpu, timeout=_TIMEOUT)


def is_main_process() -> bool:
    """Whether this process is the one that logs, describes and publishes."""
    return bool(distributed().is_main_process)


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Every `num_processes`-th item, beginning with the one of this process's index."""
    return items[distributed().process_index :: distributed().num_processes]


@contextmanager
def _collective() -> Iterator[PartialState]:
    try:
        yield distributed()
    except RuntimeError as error:
        raise InputError(
            f"another process of this launch ended ({str(error)[:120]}); its own message says why, and the same "
            "command continues"
        ) from None


def wait_for_everyone() -> None:
    """Return when all processes have called this."""
    with _collective() as state:
        state.wait_for_everyone()


def broadcast_object(value: T) -> T:
    """The main process's value, in all processes."""
    with _collective():
        values: list[T] = broadcast_object_list([value])
    return values[0]


def gather_objects(values: list[T]) -> list[T]:
    """The values of all processes one after the other, in the order of their indices."""
    with _collective():
        gathered: list[T] = gather_object(values)
    return gathered


def all_reduce_sum(tensors: Sequence[Tensor]) -> None:
    """Replace tensors, all of one dtype on one device, by their sums over all processes, in one all-reduce."""
    if distributed().num_processes == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _collective():
        flat = reduce(flat, reduction="sum")
    for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(total.view_as(tensor))


def device() -> torch.device:
    """The device that everything runs on: the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def to_device(tensor: Tensor) -> Tensor:
    """A CPU tensor on the device, copied from pinned memory, so that nothing waits for a GPU."""
    target = device()
    if target.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(target, non_blocking=True)


def compute_dtype() -> torch.dtype:
    """The number format in which networks that are trained whole compute fastest: bfloat16 where the device has it.

    A CPU without such instructions (avx512_bf16, amx_bf16) emulates it, 8 to 36 times slower than float32.
    """
    if device().type == "cuda":
        has_it = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        has_it = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return torch.bfloat16 if has_it else torch.float32


def dtype(checkpoints: Checkpoints) -> torch.dtype:
    """The precision of the frozen networks; "auto" is what the device is good at."""
    named = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if checkpoints.precision != "auto":
        return named[checkpoints.precision]
    if device().type == "cpu":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def frozen(module: Any) -> Any:
    """The module without gradients, in evaluation mode, on the device."""
    return module.requires_grad_(False).eval().to(device())
