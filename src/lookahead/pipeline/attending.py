"""Where the denoiser looks in the reference while it draws: the attention that the KV-encoder's keys receive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lookahead.errors import InputError
from lookahead.method.attention import AppendKeysValues, KeysValues
from lookahead.pipeline.pipeline import LookaheadPipeline

Maps = dict[str, Tensor]
"""Attention (S, S_r) from the target's positions to the reference's, by layer; a row sums to the reference's share."""


@dataclass(frozen=True)
class Attended:
    """A picture, and the attention to the reference in each self-attention layer, its mean over heads and steps."""

    picture: Image.Image
    maps: Maps


class RecordAttention(AppendKeysValues):
    """Extended self-attention that also adds up how much each position attends to each of the reference's (§4.1)."""

    def __init__(self, name: str, bank: KeysValues) -> None:
        """Append `bank[name]`, and record."""
        super().__init__(name, bank)
        self.total: Tensor | None = None
        self.calls = 0

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Attend to itself and to the reference: (B, S, C)."""
        if self.name in self.bank:
            seen = reference_attention(attn, hidden_states[:1], self.bank[self.name][0][:1])
            self.total, self.calls = seen if self.total is None else self.total + seen, self.calls + 1
        return super().__call__(attn, hidden_states)


def reference_attention(attn: Any, hidden: Tensor, reference_keys: Tensor) -> Tensor:
    """The reference's columns of softmax(Q (K_r ∘ K_c)^T / sqrt(d)), mean over heads and batch: (S, S_r), on the CPU.

    Args:
        attn: diffusers' attention layer.
        hidden: (B, S, C).
        reference_keys: (B, S_r, C).
    """
    keys = torch.cat([attn.to_k(hidden), reference_keys.to(hidden.dtype)], 1)
    q, k = (x.unflatten(2, (attn.heads, -1)).transpose(1, 2).float() for x in (attn.to_q(hidden), keys))
    weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)  # (B, heads, S, S + S_r)
    return weights[..., hidden.shape[1] :].mean((0, 1)).cpu()


def draw_attended(pipe: LookaheadPipeline, portrait: Image.Image, prompt: str, seed: int) -> Attended:
    """Draw one picture with the KV-encoder and record, from the second step on, where its attention goes.

    A layer's map takes S² numbers, so this is for bases that draw small pictures.

    Raises:
        InputError: the encoder has no KV-encoder, or the sampler takes one step only.
    """
    if not pipe.has_kv:
        raise InputError("this encoder has no KV-encoder, so nothing attends to the reference: train with kv.enabled")
    records: list[RecordAttention] = []

    def record(step: int, t: int, latents: Tensor) -> None:
        if step:  # the call has put its processors in place before its first step
            return
        for module in pipe.base.unet.modules():
            if isinstance(getattr(module, "processor", None), AppendKeysValues):
                records.append(RecordAttention(module.processor.name, module.processor.bank))
                module.set_processor(records[-1])

    picture = pipe(portrait, prompt, seed=seed, kv=True, callback=record)[0]
    maps = {one.name: one.total / one.calls for one in records if one.total is not None}
    if not maps:
        raise InputError(f"a sampler of {pipe.settings.steps} steps leaves none to record: take two or more")
    return Attended(picture, maps)


def as_grid(values: Tensor) -> Tensor:
    """Numbers of a square picture's positions (S,), row by row, as (sqrt S, sqrt S)."""
    side = round(len(values) ** 0.5)
    return values.reshape(side, side)
