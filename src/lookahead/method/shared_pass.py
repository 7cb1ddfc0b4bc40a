"""One pass of the KV-encoder for several losses: tokens are dropped, the rest are leaves, one backward pass follows."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lookahead.method.attention import KeysValues


def drop_tokens(shared: KeysValues, share: float, generator: Generator) -> KeysValues:
    """Leave out a share of the tokens, drawn for each sample and layer, of keys and values alike (official code)."""
    if share == 0:
        return shared

    def keep(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        batch, tokens, width = pair[0].shape
        order = torch.rand(batch, tokens, generator=generator, device=generator.device).argsort(1)
        kept = order[:, : max(1, round(tokens * (1 - share)))].to(pair[0].device, non_blocking=True)
        rows = kept[..., None].expand(-1, -1, width)
        return pair[0].gather(1, rows), pair[1].gather(1, rows)

    return {name: keep(pair) for name, pair in shared.items()}


def as_leaves(shared: KeysValues) -> KeysValues:
    """The same numbers as leaves, on which several losses gather gradients before one pass carries them on (ours)."""
    return {name: (k.detach().requires_grad_(), v.detach().requires_grad_()) for name, (k, v) in shared.items()}


def backward_through(shared: KeysValues, leaves: KeysValues) -> None:
    """Carry the gradients that were gathered on the leaves back through the KV-encoder, once (ours)."""
    pairs = [(out, leaf) for name in shared for out, leaf in zip(shared[name], leaves[name], strict=True)]
    reached = [(out, leaf.grad) for out, leaf in pairs if leaf.grad is not None]
    if reached:
        torch.autograd.backward([out for out, _ in reached], [grad for _, grad in reached])
