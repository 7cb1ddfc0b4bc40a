"""Pictures drawn while training: the same people, prompts and noise every time, so that progress can be seen."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from lookahead.artifacts import atomic
from lookahead.method.attention import appended
from lookahead.method.diffusion import add_noise
from lookahead.method.preview import lcm_preview
from lookahead.models.fast_child import child_at
from lookahead.sampling.loop import Sampler, draw_latents, image_guidance, kv_guidance
from lookahead.training.batches import Batch, load_pairs, nothing
from lookahead.training.draws import NoiseDraw, generator_for
from lookahead.training.setup import Training
from lookahead.training.step import autocast, decode, predict, reference_pass
from lookahead.world import FAST_CHILD

PREVIEWED = (0.5, 0.8)  # shares of the schedule at which previews are shown


def _grid(columns: list[Tensor]) -> Image.Image:
    """One row a person from columns of pixels (K, 3, H, W) in [-1, 1]."""
    rows = torch.cat([column.clamp(-1, 1).cpu() for column in columns], dim=3)  # (K, 3, H, columns W)
    picture = torch.cat(list(rows), dim=1).permute(1, 2, 0)  # (K H, columns W, 3)
    return Image.fromarray(((picture + 1) * 127.5).round().byte().numpy())


def _sampled(training: Training, batch: Batch, noise: Tensor) -> Tensor:
    """Latents (K, C, h, w) of what the encoder now draws for the targets' prompts."""
    settings, networks = training.settings, training.networks
    weigh = image_guidance if networks.kv is None else kv_guidance
    guidance = weigh(settings.sample_guidance)
    sampler = Sampler(training.pipe, settings.sample_steps, guidance, networks.kv, networks.bank)
    free = nothing(training.store, len(noise))
    with autocast(networks):
        return draw_latents(sampler, batch.condition, free, noise, batch.reference, [])


def _previews(training: Training, batch: Batch, noise: Tensor) -> list[Tensor]:
    """Latents (K, C, h, w) of one-step previews of the noised targets, at each of PREVIEWED."""
    networks, made = training.networks, []
    for share in PREVIEWED:
        t = torch.full((len(noise),), int(share * training.timesteps), device=noise.device)
        draw = NoiseDraw(t, noise, torch.ones(len(noise)))
        noisy = add_noise(networks.schedule, batch.latents, noise, t)
        with (
            child_at(networks.child, FAST_CHILD, 1.0),
            reference_pass(networks, batch, draw) as shared,
            appended(networks.bank, shared),
        ):
            prediction = predict(networks, noisy, t, batch.condition)
        made.append(lcm_preview(networks.schedule, noisy, prediction, t))
    return made


@torch.no_grad()
def draw_samples(training: Training) -> Image.Image:
    """A grid, one row a person: reference, target, its previews, and what the encoder now draws for its prompt."""
    settings = training.settings
    generator = generator_for("samples", settings.seed, 0)
    targets, references = training.pairs.draw(settings.samples, generator)
    batch = load_pairs(training.store, targets, references)
    noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents.device)
    with torch.compiler.set_stance("force_eager"):  # else each of these batch sizes would be compiled
        columns = [batch.reference.latents, batch.latents, *_previews(training, batch, noise)]
        columns.append(_sampled(training, batch, noise))
    return _grid([decode(training.networks, column) for column in columns])


def save_samples(path: Path, grid: Image.Image) -> None:
    """Write the grid as PNG.

    Raises:
        InputError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as temporary:
        grid.save(temporary, format="PNG")
