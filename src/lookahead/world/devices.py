"""The device and the precision that a world's parts are opened with; nothing else names devices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lookahead.config import Checkpoints


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
    """The precision of the frozen networks."""
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[checkpoints.precision]


def frozen(module: Any) -> Any:
    """The module without gradients, in evaluation mode, on the device."""
    return module.requires_grad_(False).eval().to(device())
