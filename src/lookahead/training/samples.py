"""Pictures drawn while training: the same people, prompts and noise every time, so that progress can be seen."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lookahead.artifacts import atomic
from lookahead.config import Train
from lookahead.data.pairs import draw_pairs
from lookahead.data.store import FeatureStore
from lookahead.training.batches import load_pairs, no_image, no_prompt
from lookahead.training.draws import generator_for
from lookahead.training.step import Networks, autocast, decode
from lookahead.world import Pipeline


def _grid(columns: list[Tensor]) -> Image.Image:
    """One row a person from columns of pixels (K, 3, H, W) in [-1, 1]."""
    rows = torch.cat([column.clamp(-1, 1).cpu() for column in columns], dim=3)  # (K, 3, H, columns W)
    picture = torch.cat(list(rows), dim=1).permute(1, 2, 0)  # (K H, columns W, 3)
    return Image.fromarray(((picture + 1) * 127.5).round().byte().numpy())


@torch.no_grad()
def draw_samples(pipe: Pipeline, networks: Networks, store: FeatureStore, settings: Train, path: Path) -> None:
    """Write a PNG, one row a person: the reference, the target, and what the encoder now draws for the target's prompt.

    Raises:
        InputError: the file cannot be written.
    """
    generator = generator_for("samples", settings.seed, 0)
    targets, references = draw_pairs(store.table, settings.samples, generator)
    batch = load_pairs(store, targets, references)
    null = no_image(store).expand_as(batch.image_features)
    tokens, pooled = no_prompt(store, settings.samples)
    # diffusers runs the unconditional half only where guidance is above 1
    seen = torch.cat([null, batch.image_features]) if settings.sample_guidance > 1 else batch.image_features
    with autocast(networks):
        latents = pipe(
            prompt_embeds=batch.prompt_embeds,
            pooled_prompt_embeds=batch.pooled,
            negative_prompt_embeds=tokens,
            negative_pooled_prompt_embeds=pooled,
            ip_adapter_image_embeds=[seen[:, None]],
            latents=torch.randn(batch.latents.shape, generator=generator).to(batch.latents.device),
            num_inference_steps=settings.sample_steps,
            guidance_scale=settings.sample_guidance,
            output_type="latent",
        ).images
    reference = store.latents(references).to(latents.device)
    grid = _grid([decode(networks.preview_vae, column) for column in (reference, batch.latents, latents)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        grid.save(temporary, format="PNG")
