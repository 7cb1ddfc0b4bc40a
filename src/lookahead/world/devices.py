"""The device and the number format that a world's parts are opened with; nothing else names devices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lookahead.config import Checkpoints


def device() -> torch.device:
    """The device that everything runs on: the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def sent(tensor: Tensor) -> Tensor:
    """A tensor of the CPU on the device, without waiting for a GPU: it copies from memory that stays in its place."""
    place = device()
    if place.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(place, non_blocking=True)


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
    """The number format of the frozen networks."""
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[checkpoints.precision]


def frozen(module: Any) -> Any:
    """The module without gradients, in evaluation mode, on the device."""
    return module.requires_grad_(False).eval().to(device())
