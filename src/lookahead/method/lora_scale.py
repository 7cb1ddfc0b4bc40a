"""alpha_LoRA: drawing it, and giving it to the fast child's LoRA for a while."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Generator


class ScaledLayer(Protocol):
    """A layer with a LoRA whose strength can be set, such as peft's."""

    @property
    def scaling(self) -> MutableMapping[str, float]:
        """The factor of each adapter's LoRA."""

    def set_scale(self, adapter: str, scale: float) -> None:
        """Set the strength of one adapter: 0 is the base's layer, 1 the full LoRA."""


def draw_scale(low: float, high: float, probability_of_one: float, generator: Generator) -> float:
    """alpha_LoRA: 1 with a probability, else uniform in [low, high] (§4.2).

    Two numbers are always drawn, so that the second does not depend on the probability.
    """
    chance, place = torch.rand(2, generator=generator, dtype=torch.float64, device=generator.device).tolist()
    return 1.0 if chance < probability_of_one else low + (high - low) * place


@contextmanager
def lora_scale(layers: Sequence[ScaledLayer], adapter: str, scale: float) -> Iterator[None]:
    """Set an adapter's strength in these layers and restore it at the end; `backward()` belongs inside (§4.2).

    Gradient checkpointing runs the layers again during `backward()`: outside, it would see the restored strength and
    the gradients would be wrong without a word.
    """
    before = [layer.scaling[adapter] for layer in layers]
    for layer in layers:
        layer.set_scale(adapter, scale)
    try:
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            layer.scaling[adapter] = value
