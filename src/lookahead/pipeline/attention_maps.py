"""Attention maps: how much each self-attention layer attends to the reference through the KV-encoder."""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor

from lookahead.errors import InputError
from lookahead.method.attention import AppendKeysValues, KeysValues
from lookahead.pipeline.pipeline import LookaheadPipeline

Maps = dict[str, Tensor]
"""Attention (S, S_r) from the target's positions to the reference's, by layer; a row sums to the reference's share."""


class RecordAttention(AppendKeysValues):
    """Extended self-attention (§4.1) that also sums up the attention to the reference."""

    def __init__(self, name: str, bank: KeysValues) -> None:
        super().__init__(name, bank)
        self.maps: list[Tensor] = []

    def __call__(self, attn: Any, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        """Attend to itself and to the reference: (B, S, C)."""
        if self.name in self.bank:
            self.maps.append(reference_attention(attn, hidden_states[:1], self.bank[self.name][0][:1]))
        return super().__call__(attn, hidden_states)


def reference_attention(attn: Any, hidden: Tensor, reference_keys: Tensor) -> Tensor:
    """The reference's columns of softmax(Q (K_r ∘ K_c)^T / sqrt(d)), mean over heads and batch: (S, S_r)."""
    keys = torch.cat([attn.to_k(hidden), reference_keys.to(hidden.dtype)], 1)
    q, k = (x.unflatten(2, (attn.heads, -1)).transpose(1, 2).float() for x in (attn.to_q(hidden), keys))
    weights = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1)  # (B, heads, S, S + S_r)
    return weights[..., hidden.shape[1] :].mean((0, 1)).cpu()


def draw_with_attention(
    pipe: LookaheadPipeline, portrait: Image.Image, prompt: str, seed: int
) -> tuple[Image.Image, Maps]:
    """A picture drawn with the KV-encoder, and each layer's map, its mean over heads and the steps from the second on.

    A map takes S² numbers, so this is for bases that draw small pictures.
    """
    if not pipe.has_kv:
        raise InputError("this encoder has no KV-encoder, so it has no attention maps: train with kv.enabled")
    records: list[RecordAttention] = []

    def record(step: int, t: int, latents: Tensor) -> None:
        if step == 0:  # the call installs its processors before its first step
            for module in pipe.base.unet.modules():
                if isinstance(getattr(module, "processor", None), AppendKeysValues):
                    records.append(RecordAttention(module.processor.name, module.processor.bank))
                    module.set_processor(records[-1])

    picture = pipe(portrait, prompt, seed=seed, kv=True, callback=record)[0]
    return picture, {each.name: torch.stack(each.maps).mean(0) for each in records if each.maps}
