"""alpha_LoRA: drawing it, and giving it to the fast child's LoRA for a while."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Generator, Tensor


class ScaledLayer(Protocol):
    """A layer with a LoRA whose strength can be set, such as peft's."""

    @property
    def scaling(self) -> MutableMapping[str, float | Tensor]:
        """The factor of each adapter's LoRA, a number or a tensor ()."""

    def set_scale(self, adapter: str, scale: float) -> None:
        """Set the strength of one adapter: 0 is the base's layer, 1 the full LoRA."""


def draw_scale(low: float, high: float, probability_of_one: float, generator: Generator) -> float:
    """alpha_LoRA: 1 with a probability, else uniform in [low, high] (§4.2).

    Two numbers are always drawn, so that the second does not depend on the probability.
    """
    chance, position = torch.rand(2, generator=generator, dtype=torch.float64, device=generator.device).tolist()
    return 1.0 if chance < probability_of_one else low + (high - low) * position


@contextmanager
def lora_scale(layers: Sequence[ScaledLayer], adapter: str, scale: float) -> Iterator[None]:
    """Set an adapter's strength in these layers and restore it at the end; `backward()` belongs inside (§4.2).

    Gradient checkpointing runs the layers again during `backward()`: outside, it would see the restored strength and
    the gradients would be wrong without an error.

    A factor that was a tensor stays one: compiled code takes it as an input, whereas a number is a part of the code.
    """
    before = [layer.scaling[adapter] for layer in layers]
    for layer in layers:
        layer.set_scale(adapter, scale)
    _as_before(layers, adapter, before)
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.scaling[adapter] = value


def _as_before(layers: Sequence[ScaledLayer], adapter: str, before: Sequence[float | Tensor]) -> None:
    """Make the numbers just set tensors where tensors were; equal numbers share one, made anew and not filled in place.

    Autograd keeps the factor for `backward()`, which a later draw would overwrite.
    """
    shared: dict[float, Tensor] = {}
    for layer, old in zip(layers, before, strict=True):
        if isinstance(old, Tensor):
            number = float(layer.scaling[adapter])
            if number not in shared:
                shared[number] = torch.full_like(old, number)
            layer.scaling[adapter] = shared[number]
