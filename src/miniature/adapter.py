"""The miniature's untuned IP-Adapter-plus, trained with the noise loss alone: what the method then improves."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from lookahead.artifacts import Log
from lookahead.config import Part
from lookahead.method.diffusion import add_noise, noise_target
from lookahead.models.adapter import adapter_parameters, save_adapter
from miniature.base import embed_prompts, nameless_captions, new_scheduler, predict, schedule_of
from miniature.fitting import fit
from miniature.image_encoder import WIDTH
from miniature.pool import Pool
from miniature.text import WIDTHS
from miniature.words import SCENES

TOKENS = 8
HIDDEN = 128
HEADS = 128  # channels of all heads: diffusers opens every IP-Adapter-plus with heads of 64 channels and four layers
LAYERS = 4
IMAGE_DROP = 0.1


def new_adapter(unet: UNet2DConditionModel, generator: torch.Generator) -> dict[str, dict[str, Tensor]]:
    """An untrained adapter in IP-Adapter's layout; its values start at zero, so that the base is unchanged."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    output = sum(WIDTHS)
    projection = {
        "latents": draw(1, TOKENS, HIDDEN),
        "proj_in.weight": draw(HIDDEN, WIDTH),
        "proj_in.bias": torch.zeros(HIDDEN),
    }
    projection |= {"proj_out.weight": draw(output, HIDDEN), "proj_out.bias": torch.zeros(output)}
    projection |= {"norm_out.weight": torch.ones(output), "norm_out.bias": torch.zeros(output)}
    for layer in range(LAYERS):
        attention, forward = f"layers.{layer}.0", f"layers.{layer}.1"
        for norm in (f"{attention}.norm1", f"{attention}.norm2", f"{forward}.0"):
            projection |= {f"{norm}.weight": torch.ones(HIDDEN), f"{norm}.bias": torch.zeros(HIDDEN)}
        projection |= {
            f"{attention}.to_q.weight": draw(HEADS, HIDDEN),
            f"{attention}.to_kv.weight": draw(2 * HEADS, HIDDEN),
        }
        projection |= {f"{attention}.to_out.weight": draw(HIDDEN, HEADS) / LAYERS}
        projection |= {
            f"{forward}.1.weight": draw(4 * HIDDEN, HIDDEN),
            f"{forward}.3.weight": draw(HIDDEN, 4 * HIDDEN) / LAYERS,
        }
    layers = {}
    for number, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            layers[f"{number}.to_k_ip.weight"] = draw(width, output)
            layers[f"{number}.to_v_ip.weight"] = torch.zeros(width, output)
    return {"image_proj": projection, "ip_adapter": layers}


def reference_rows(pool: Pool) -> Tensor:
    """For each row a picture that shows its person: another photo of the same name, itself for people without one."""
    photos = defaultdict(list)
    for row in range(len(pool)):
        if pool.first[row] >= 0 and pool.style[row] == 0:
            photos[int(pool.first[row]), int(pool.last[row])].append(row)
    references = torch.arange(len(pool))
    for row in range(len(pool)):
        others = [r for r in photos[int(pool.first[row]), int(pool.last[row])] if r != row]
        if others:
            references[row] = others[row % len(others)]
    return references


def build_adapter(
    pool: Pool,
    latents: Tensor,
    features: Tensor,
    null: Tensor,
    unet: UNet2DConditionModel,
    base: Path,
    part: Part,
    out: Path,
    work: Path,
    log: Log,
) -> None:
    """Train an IP-Adapter-plus on the frozen base with the noise loss and save it in IP-Adapter's layout.

    Args:
        pool: pictures; their captions are used without the names, so that identity must come from the image.
        latents: (N, 8, 16, 16) of the pool.
        features: (N, 65, 128) image features of the pool.
        null: (1, 65, 128) those of no picture, where the image is dropped.
        unet: the frozen base U-Net; the adapter is installed in it.
        base: the folder of the base pipeline.
        part: steps, batch, learning rate, seed.
        out: the adapter's folder.
        work: resume state.
        log: receives the loss.
    """
    unet.requires_grad_(False)._load_ip_adapter_weights([new_adapter(unet, torch.Generator().manual_seed(part.seed))])
    trained = adapter_parameters(unet)
    for p in trained.values():
        p.requires_grad_(True)
    schedule = schedule_of(new_scheduler())
    prompts = embed_prompts(base, nameless_captions())
    prompt_of = pool.style * len(SCENES) + pool.scene
    references = reference_rows(pool)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pool), (part.batch,), generator=generator)
        clean, noise = latents[rows].float(), torch.randn(part.batch, *latents.shape[1:], generator=generator)
        t = torch.randint(1000, (part.batch,), generator=generator)
        dropped = torch.rand(part.batch, generator=generator) < IMAGE_DROP
        image = torch.where(dropped[:, None, None], null, features[references[rows]].float())
        with torch.autocast("cpu", torch.bfloat16):
            predicted = predict(unet, add_noise(schedule, clean, noise, t), t, prompts[prompt_of[rows]], image)
        return F.mse_loss(predicted, noise_target(schedule, clean, noise, t))

    fit(_Held(trained), loss, part, work, log)
    save_adapter(work / "ip-adapter.safetensors", unet)
    out.mkdir(parents=True, exist_ok=True)
    (out / "ip-adapter.safetensors").write_bytes((work / "ip-adapter.safetensors").read_bytes())


class _Held(nn.Module):
    """The trained parameters alone, for `fit`."""

    def __init__(self, parameters: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.held = nn.ParameterList(parameters.values())
