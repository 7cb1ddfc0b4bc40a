"""The fast child: the LCM-LoRA on the denoising U-Net, off except while a preview is formed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from lookahead.errors import InputError
from lookahead.method.lora_scale import lora_scale


def lora_layers(unet: nn.Module, adapter: str) -> list[LoraLayer]:
    """The U-Net's layers that carry this LoRA, to be found once: setting them is then 70 times cheaper (§4.2)."""
    found: list[LoraLayer] = [
        module for module in unet.modules() if isinstance(module, LoraLayer) and adapter in module.scaling
    ]
    if not found:
        raise InputError(f"no layer of the U-Net carries the LoRA {adapter!r}: check `checkpoints.fast_child`")
    return found


def switch_off(layers: Sequence[LoraLayer]) -> None:
    """Take the LoRA out of the computation: as strength 0, without its cost (a third of a small U-Net's step)."""
    for layer in layers:
        layer.set_adapter([], inference_mode=True)


def hold_scale_as_tensor(layers: Sequence[LoraLayer], adapter: str) -> None:
    """Make the strength an input of compiled code: a number would be compiled into it, each draw anew.

    Only for compiled code, which multiplies in float32: torch's own kernels on a GPU round a tensor to bfloat16 first,
    and a number not.
    """
    for layer in layers:
        device = next(layer.parameters()).device
        layer.scaling[adapter] = torch.tensor(layer.scaling[adapter], dtype=torch.float32, device=device)


@contextmanager
def child_at(layers: Sequence[LoraLayer], adapter: str, scale: float) -> Iterator[None]:
    """The U-Net is the fast child at this strength inside, and the base outside; `backward()` belongs inside (§4.2)."""
    with lora_scale(layers, adapter, scale):
        for layer in layers:
            layer.set_adapter([adapter], inference_mode=True)  # frozen: plain `set_adapter` would make it trainable
        try:
            yield
        finally:
            switch_off(layers)
