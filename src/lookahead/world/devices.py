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


def dtype(checkpoints: Checkpoints) -> torch.dtype:
    """The precision of the frozen networks."""
    return {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[checkpoints.precision]


def frozen(module: Any) -> Any:
    """The module without gradients, in evaluation mode, on the device."""
    return module.requires_grad_(False).eval().to(device())
