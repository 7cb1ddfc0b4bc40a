"""The KV-encoder: a second U-Net over the same frozen weights, with LoRAs of its own (§4.1)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn

from lookahead.artifacts import load_tensors, save_tensors
from lookahead.errors import InputError
from lookahead.method.attention import AppendKeysValues, Asked, CaptureKeysValues, KeysValues

KV_FILE = "kv.safetensors"
_LORA = "kv_encoder"
_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
_SELF_ATTENTION = "attn1"


class SharedProjection(nn.Module):
    """W h + B A h: a frozen projection with a LoRA that serves the shared keys or values alone (§4.1)."""

    def __init__(self, frozen: nn.Linear, rank: int) -> None:
        """Start as the frozen projection: B is zero."""
        super().__init__()
        device = frozen.weight.device
        self.frozen = frozen
        self.down = nn.Linear(frozen.in_features, rank, bias=False, device=device)
        self.up = nn.Linear(rank, frozen.out_features, bias=False, device=device)
        nn.init.zeros_(self.up.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """Project (B, S, C)."""
        change: Tensor = self.up(self.down(hidden.to(self.down.weight.dtype)))
        return self.frozen(hidden) + change


@dataclass(frozen=True)
class KVEncoder:
    """The second U-Net, the projections of what it shares, and the bank that it captures into."""

    unet: UNet2DConditionModel
    shared: nn.ModuleDict
    bank: Asked

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trainable parameters by name: the LoRAs, and nothing of the frozen weights."""
        own = {f"unet.{name}": p for name, p in self.unet.named_parameters() if f".{_LORA}." in name}
        shared = {f"shared.{name}": p for name, p in self.shared.named_parameters() if ".frozen." not in name}
        return own | shared

    def encode(self, noisy: Tensor, t: Tensor, text: Tensor, conditions: Mapping[str, Tensor]) -> KeysValues:
        """Keys and values to share, for noisy reference latents (B, C, h, w) at t (B,) and the reference's prompt."""
        self.bank.update(dict.fromkeys(name.replace("/", ".") for name in self.shared))
        self.unet(noisy, t, encoder_hidden_states=text, added_cond_kwargs=dict(conditions), return_dict=False)
        captured = {name: pair for name, pair in self.bank.items() if pair is not None}
        self.bank.clear()
        return captured


def twin(unet: UNet2DConditionModel) -> UNet2DConditionModel:
    """A second instance whose parameters and buffers are the same tensors (ARCHITECTURE.md, decision 1)."""
    tensors = [*unet.parameters(), *unet.buffers()]
    return copy.deepcopy(unet, {id(tensor): tensor for tensor in tensors})


def _self_attention(unet: nn.Module) -> dict[str, Any]:
    return {name: module for name, module in unet.named_modules() if name.endswith(f".{_SELF_ATTENTION}")}


def _tuned_layers(unet: nn.Module) -> list[str]:
    """Projections of all attentions but the last block's: behind its shared keys and values nothing is used."""
    last = [name for name in _self_attention(unet) if name.startswith("up_blocks")][-1].removesuffix(_SELF_ATTENTION)
    names = (name for name, module in unet.named_modules() if isinstance(module, nn.Linear))
    return [name for name in names if ".attn" in name and name.endswith(_TARGETS) and not name.startswith(last)]


def new_kv_encoder(unet: UNet2DConditionModel, rank: int, shared_rank: int, seed: int) -> KVEncoder:
    """An untuned KV-encoder, which shares exactly the base's own keys and values, of a U-Net without adapters yet.

    The base's weights are shared, its modules not touched. `rank` is that of the LoRAs of self- and cross-attention,
    `shared_rank` that of what is shared, and `seed` that of the LoRAs' first half; the other half starts at zero.
    """
    second, bank = twin(unet), Asked()
    with torch.random.fork_rng(), torch.device(unet.device):
        torch.manual_seed(seed)
        shared = nn.ModuleDict()
        for name, attn in _self_attention(second).items():
            keys, values = (SharedProjection(layer, shared_rank) for layer in (attn.to_k, attn.to_v))
            shared[name.replace(".", "/")] = nn.ModuleList([keys, values])
            attn.set_processor(CaptureKeysValues(name, bank, keys, values))
        second.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=_tuned_layers(second)), _LORA)
    encoder = KVEncoder(second, shared, bank)
    for parameter in encoder.parameters().values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return encoder


def extend_self_attention(unet: UNet2DConditionModel) -> KeysValues:
    """Let the denoiser append what is in the returned bank; loading an IP-Adapter undoes it, so this comes after."""
    bank = KeysValues()
    for name, attn in _self_attention(unet).items():
        attn.set_processor(AppendKeysValues(name, bank))
    return bank


def save_kv_encoder(path: Path, encoder: KVEncoder) -> None:
    """Write the LoRAs as safetensors."""
    weights = {name: weight.detach().cpu().contiguous() for name, weight in encoder.parameters().items()}
    save_tensors(path, weights, {})


def open_kv_encoder(path: Path, unet: UNet2DConditionModel) -> KVEncoder:
    """A KV-encoder of a plain base U-Net with the LoRAs of a file, whose ranks tell its own."""
    tensors, _ = load_tensors(path)
    ranks = [next((t.shape[0] for name, t in tensors.items() if part in name), 0) for part in ("lora_A", "down.weight")]
    if 0 in ranks:
        raise InputError(f"{path} holds no KV-encoder: expected {KV_FILE} of a training with kv.enabled")
    encoder = new_kv_encoder(unet, ranks[0], ranks[1], seed=0)
    weights = encoder.parameters()
    if {name: t.shape for name, t in tensors.items()} != {name: w.shape for name, w in weights.items()}:
        raise InputError(f"{path} does not fit this U-Net: it was trained with another one; train again")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[name])
    return encoder
