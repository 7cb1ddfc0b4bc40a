"""The image adapter inside a diffusers U-Net: its parameters, and its file in IP-Adapter's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from torch import Tensor, nn

from lookahead.artifacts import save_tensors
from lookahead.errors import InputError

ADAPTER_FILE = "ip-adapter.safetensors"
# diffusers' names inside one layer of the resampler, and the numbers that IP-Adapter's nn.Sequential gives them
_LAYER_NAMES = {
    "ln0": "0.norm1",
    "ln1": "0.norm2",
    "attn.to_q": "0.to_q",
    "attn.to_out.0": "0.to_out",
    "ff.0": "1.0",
    "ff.1.net.0.proj": "1.1",
    "ff.1.net.2": "1.3",
}


def image_projection(unet: UNet2DConditionModel) -> IPAdapterPlusImageProjection:
    """The resampler that turns image features (B, S, D) into image tokens."""
    layers: Any = getattr(getattr(unet, "encoder_hid_proj", None), "image_projection_layers", ())
    if len(layers) != 1 or not isinstance(layers[0], IPAdapterPlusImageProjection):
        kinds = [type(layer).__name__ for layer in layers]
        raise InputError(f"the adapter must be one IP-Adapter-plus, not {kinds}: check `checkpoints.adapter`")
    return layers[0]


def _attention(unet: UNet2DConditionModel) -> list[tuple[str, nn.Module]]:
    processors: dict[str, nn.Module] = unet.attn_processors
    return [(name, processor) for name, processor in processors.items() if hasattr(processor, "to_k_ip")]


def adapter_parameters(unet: UNet2DConditionModel) -> dict[str, nn.Parameter]:
    """The adapter's parameters by name: the image projection, and keys and values of every cross-attention (§4.1)."""
    found = {f"image_projection.{name}": p for name, p in image_projection(unet).named_parameters()}
    for place, processor in _attention(unet):
        found |= {f"{place}.{name}": p for name, p in processor.named_parameters()}
    return found


def _export_projection(projection: nn.Module) -> dict[str, Tensor]:
    state = projection.state_dict()
    exported = {name: tensor for name, tensor in state.items() if not name.startswith("layers.")}
    for layer in range(len({name.split(".")[1] for name in state if name.startswith("layers.")})):
        for ours, theirs in _LAYER_NAMES.items():
            for kind in ("weight", "bias"):
                if (name := f"layers.{layer}.{ours}.{kind}") in state:
                    exported[f"layers.{layer}.{theirs}.{kind}"] = state[name]
        pair = [state[f"layers.{layer}.attn.{name}.weight"] for name in ("to_k", "to_v")]
        exported[f"layers.{layer}.0.to_kv.weight"] = torch.cat(pair)
    return exported


def export_adapter(unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The adapter in IP-Adapter's layout ("image_proj.*", "ip_adapter.<odd>.to_k_ip.weight"), copied to the CPU.

    The exact inverse of diffusers' loading, so that `pipe.load_ip_adapter` opens the file.
    """
    exported = {f"image_proj.{name}": t for name, t in _export_projection(image_projection(unet)).items()}
    for number, (_, processor) in enumerate(_attention(unet)):
        for kind in ("to_k_ip", "to_v_ip"):
            weight = processor.get_parameter(f"{kind}.0.weight")
            exported[f"ip_adapter.{2 * number + 1}.{kind}.weight"] = weight
    return {name: tensor.detach().clone().cpu().contiguous() for name, tensor in exported.items()}


def save_adapter(path: Path, unet: UNet2DConditionModel) -> None:
    """Write `export_adapter` as safetensors."""
    save_tensors(path, export_adapter(unet), {})
