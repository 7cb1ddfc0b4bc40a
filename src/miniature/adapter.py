"""The untuned IP-Adapter-plus, trained with the noise loss alone: what the method then improves."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from lookahead.models.adapter import ADAPTER_FILE, adapter_parameters, save_adapter
from lookahead.sampling.loop import noise_schedule
from lookahead.world import device
from miniature.base import draw_batch, embed_prompts, new_scheduler, predict
from miniature.data import Pool
from miniature.encoders import TEXT_WIDTHS, WIDTH
from miniature.training import Part, autocast, fit
from miniature.vocabulary import SCENES, captions_without_names

TOKENS = 8
HIDDEN = 128
HEADS = 128  # channels of all heads: diffusers opens every IP-Adapter-plus with heads of 64 channels and four layers
LAYERS = 4
IMAGE_DROPOUT = 0.1


def new_adapter(unet: UNet2DConditionModel, generator: torch.Generator) -> dict[str, dict[str, Tensor]]:
    """An untrained adapter in IP-Adapter's layout; its values start at zero, so that the base is unchanged."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    def norm(name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": torch.ones(width), f"{name}.bias": torch.zeros(width)}

    output = sum(TEXT_WIDTHS)
    projection = {"latents": draw(1, TOKENS, HIDDEN), "proj_in.weight": draw(HIDDEN, WIDTH)}
    projection |= {"proj_in.bias": torch.zeros(HIDDEN), "proj_out.weight": draw(output, HIDDEN)}
    projection |= {"proj_out.bias": torch.zeros(output)} | norm("norm_out", output)
    for layer in range(LAYERS):
        attention, forward = f"layers.{layer}.0", f"layers.{layer}.1"
        for name in (f"{attention}.norm1", f"{attention}.norm2", f"{forward}.0"):
            projection |= norm(name, HIDDEN)
        projection[f"{attention}.to_q.weight"] = draw(HEADS, HIDDEN)
        projection[f"{attention}.to_kv.weight"] = draw(2 * HEADS, HIDDEN)
        projection[f"{attention}.to_out.weight"] = draw(HIDDEN, HEADS) / LAYERS
        projection[f"{forward}.1.weight"] = draw(4 * HIDDEN, HIDDEN)
        projection[f"{forward}.3.weight"] = draw(HIDDEN, 4 * HIDDEN) / LAYERS
    layers = {}
    for number, name in enumerate(unet.attn_processors):
        if "attn2" in name:
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            layers[f"{number}.to_k_ip.weight"] = draw(width, output)
            layers[f"{number}.to_v_ip.weight"] = torch.zeros(width, output)
    return {"image_proj": projection, "ip_adapter": layers}


def reference_rows(pool: Pool) -> Tensor:
    """For each row a picture that shows its person: another photo of the same name, itself for people without one."""
    people = list(zip(pool.first.tolist(), pool.last.tolist(), strict=True))
    photos = defaultdict(list)
    for row, (person, style) in enumerate(zip(people, pool.style.tolist(), strict=True)):
        if person[0] >= 0 and style == 0:
            photos[person].append(row)
    references = torch.arange(len(pool))
    for row, person in enumerate(people):
        if others := [r for r in photos[person] if r != row]:
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
) -> None:
    """Train an IP-Adapter-plus on the frozen base with the noise loss and save it in IP-Adapter's layout.

    Args:
        pool: pictures; their captions are used without the names, so that identity must come from the image.
        latents: (N, 8, 16, 16) of the pool.
        features: (N, 65, 128) image features of the pool.
        null: (1, 65, 128) those of no picture, where the image is dropped.
        unet: the frozen base U-Net; the adapter is installed in it.
        base: the folder of the base pipeline.
        part: steps, batch size, learning rate, seed.
        out: the adapter's folder.
        work: resume state.
    """
    unet._load_ip_adapter_weights([new_adapter(unet, torch.Generator().manual_seed(part.seed))])
    trained = adapter_parameters(unet.to(device()))
    for p in trained.values():
        p.requires_grad_(True)
    schedule = noise_schedule(new_scheduler())
    prompts = embed_prompts(base, captions_without_names())
    prompt_of = pool.style * len(SCENES) + pool.scene
    references = reference_rows(pool)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        batch = draw_batch(latents, schedule, part.batch_size, generator)
        dropped = (torch.rand(part.batch_size, generator=generator) < IMAGE_DROPOUT).to(device())
        shown = features[references[batch.rows]].float().to(device())
        image = torch.where(dropped[:, None, None], null, shown)
        with autocast():
            predicted = predict(unet, batch.noised, batch.t, prompts[prompt_of[batch.rows]], image)
        return F.mse_loss(predicted, batch.target)

    fit(nn.ParameterList(trained.values()), loss, part, work)
    save_adapter(out / ADAPTER_FILE, unet)
