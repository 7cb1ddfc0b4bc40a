"""This project's training step on random features: the functions that `lookahead train` calls."""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.parts import (
    ALPHA,
    PREVIEW,
    RANK,
    TOKEN_DROP,
    WEIGHT,
    Levers,
    attach_adapter,
    child_config,
    networks_of,
    new_batch,
    new_draw,
    new_unet,
)
from benchmarks.sdxl import Sizes
from lookahead.method.attention import KeysValues, appended
from lookahead.method.shared_pass import as_leaves, backward_through, drop_tokens
from lookahead.models.fast_child import child_at, switch_off
from lookahead.models.kv_encoder import extend_self_attention, new_kv_encoder
from lookahead.training.data import NoiseDraw, generator_for
from lookahead.training.losses import encode_reference, noise_losses, preview_distances, preview_pixels
from lookahead.training.networks import Networks, compile_unets, enable_checkpointing, train_adapter_only
from lookahead.world import FAST_CHILD


def open_ours(sizes: Sizes, levers: Levers) -> Networks:
    """One copy of the frozen weights: the KV-encoder shares the U-Net's tensors, the child is a LoRA with a scale."""
    unet = new_unet(sizes, levers)
    kv = new_kv_encoder(unet, RANK, RANK, seed=0) if levers.kv else None
    unet.add_adapter(child_config(sizes), FAST_CHILD)
    attach_adapter(unet, sizes)
    networks = networks_of(sizes, levers, unet, kv, extend_self_attention(unet) if levers.kv else {})
    switch_off(networks.child)
    train_adapter_only(unet)
    unets = [unet] if kv is None else [unet, kv.unet]
    if levers.checkpointing:
        enable_checkpointing(unets, networks.preview_vae)
    if levers.compiled:
        compile_unets(unets, networks.child, levers.memory_budget, "inductor")
    return networks


class Ours:
    """Steps of one row, each from new draws."""

    def __init__(self, sizes: Sizes, batch: int, levers: Levers) -> None:
        """Build the networks, the features of one batch, and the optimiser."""
        self.networks, self.levers = open_ours(sizes, levers), levers
        self.batch = new_batch(sizes, batch)
        trained = [p for p in self.networks.unet.parameters() if p.requires_grad]
        trained += [] if self.networks.kv is None else list(self.networks.kv.parameters().values())
        self.optimiser = torch.optim.AdamW(trained, lr=1e-6, fused=True)

    def step(self, number: int) -> None:
        """Both losses, with one pass of the KV-encoder or two, and one optimiser step."""
        draw, generator = new_draw(self.batch), generator_for("benchmark", 0, number)
        keys_values = encode_reference(self.networks, self.batch, draw)
        leaves = as_leaves(keys_values)
        self._noise(draw, leaves, generator)
        if self.levers.lookahead and not self.levers.share:
            backward_through(keys_values, leaves)
            draw = replace(draw, t=draw.t.flip(0))
            keys_values = encode_reference(self.networks, self.batch, draw)
            leaves = as_leaves(keys_values)
        if self.levers.lookahead:
            self._lookahead(draw, leaves, generator)
        backward_through(keys_values, leaves)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def _noise(self, draw: NoiseDraw, leaves: KeysValues, generator: torch.Generator) -> None:
        with appended(self.networks.bank, drop_tokens(leaves, TOKEN_DROP, generator)):
            noise_losses(self.networks, self.batch, draw, self.batch.condition).mean().backward()

    def _lookahead(self, draw: NoiseDraw, leaves: KeysValues, generator: torch.Generator) -> None:
        with (
            child_at(self.networks.child, FAST_CHILD, ALPHA),
            appended(self.networks.bank, drop_tokens(leaves, TOKEN_DROP, generator)),
        ):
            pixels = preview_pixels(self.networks, self.batch, draw, PREVIEW, generator)
            distance, _ = preview_distances(self.networks, self.batch, pixels, "identity")
            (distance.mean() * ALPHA * WEIGHT).backward()
