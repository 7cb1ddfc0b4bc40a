"""Extended self-attention: the KV-encoder's keys and values are appended to the denoiser's, layer by layer.

K := K_r ∘ K_c and V := V_r ∘ V_c (§4.1), r the picture that is denoised, c the reference.

Two attention processors in diffusers' convention do it: one captures in the KV-encoder, one appends in the denoiser.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

KeysValues = dict[str, tuple[Tensor, Tensor]]
"""Keys and values (B, S, C) each, of the reference, by the name of their self-attention layer."""
Asked = dict[str, tuple[Tensor, Tensor] | None]
"""The same while they are gathered; None where a layer has not answered."""


class Attention(Protocol):
    """What the processors use of diffusers' attention layer."""

    heads: int
    to_q: nn.Module
    to_k: nn.Module
    to_v: nn.Module
    to_out: nn.ModuleList


def attend(attn: Attention, hidden: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V over heads, then the output projection: (B, S, C) (§3)."""
    q, k, v = (x.unflatten(2, (attn.heads, -1)).transpose(1, 2) for x in (attn.to_q(hidden), keys, values))
    mixed = nn.functional.scaled_dot_product_attention(q, k, v)  # (B, heads, S, d)
    for layer in attn.to_out:
        mixed = layer(mixed.transpose(1, 2).flatten(2)) if mixed.ndim == 4 else layer(mixed)
    return mixed


class CaptureKeysValues:
    """Self-attention of the KV-encoder, which also puts the keys and values to share into `bank`, if asked (§4.1).

    What is shared comes from projections of its own, `keys` and `values`: the frozen ones with a LoRA that only serves
    the denoiser. Gradient checkpointing calls this again in `backward()`, when nobody asks; what is kept fills memory.
    """

    def __init__(self, name: str, bank: Asked, keys: nn.Module, values: nn.Module) -> None:
        """Capture into `bank[name]`, where there is such an entry."""
        self.name, self.bank, self.keys, self.values = name, bank, keys, values

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Attend to itself: (B, S, C)."""
        shared = (self.keys(hidden_states), self.values(hidden_states))
        if self.name in self.bank:
            self.bank[self.name] = shared
        return attend(attn, hidden_states, attn.to_k(hidden_states), attn.to_v(hidden_states))


class AppendKeysValues:
    """Self-attention of the denoiser over its own keys and values and those in `bank`, if there are any (§4.1)."""

    def __init__(self, name: str, bank: KeysValues) -> None:
        """Append `bank[name]`."""
        self.name, self.bank = name, bank

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Attend to itself and to the reference: (B, S, C)."""
        keys, values = attn.to_k(hidden_states), attn.to_v(hidden_states)
        if self.name in self.bank:
            more_keys, more_values = self.bank[self.name]
            keys = torch.cat([keys, more_keys.to(keys.dtype)], 1)
            values = torch.cat([values, more_values.to(values.dtype)], 1)
        return attend(attn, hidden_states, keys, values)


@contextmanager
def appended(bank: KeysValues, shared: KeysValues) -> Iterator[None]:
    """The denoiser sees the shared keys and values inside; `backward()` belongs inside (§4.1).

    Gradient checkpointing runs the layers again during `backward()`: outside, it would see an empty bank.
    """
    bank.update(shared)
    try:
        yield
    finally:
        bank.clear()
