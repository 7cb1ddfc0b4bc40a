"""The gradients of one micro-batch: both losses, and one pass of the KV-encoder for both where they share timesteps."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from lookahead.method.attention import KeysValues, appended
from lookahead.method.lookahead import lookahead_loss
from lookahead.method.shared_pass import drop_tokens
from lookahead.models.fast_child import child_at
from lookahead.training.batches import Batch, load_pairs, with_drops
from lookahead.training.draws import Draws, NoiseDraw, draw_both, generator_for, scale_at
from lookahead.training.setup import Training
from lookahead.training.step import lookahead_pass, noise_pass, preview_pass, reference_pass
from lookahead.world import FAST_CHILD

Figures = dict[str, Tensor]
"""Figures of a micro-batch, each a tensor () on the device: reading one makes the processor wait for the GPU."""
Row = dict[str, float]
"""Figures that were read."""
BINS = 4  # of timesteps, in which the curves show the previews' distance


def noise_step(training: Training, batch: Batch, draw: NoiseDraw, leaves: KeysValues, index: int) -> Figures:
    """Add the noise loss's gradient of micro-batch `index`."""
    settings, generator = training.settings, generator_for("drops", training.settings.seed, index)
    condition = with_drops(training.store, batch.condition, settings, generator)
    with appended(training.networks.bank, drop_tokens(leaves, settings.kv.token_drop, generator)):
        loss = (draw.weight * noise_pass(training.networks, batch, draw, condition)).mean()
        (loss / settings.accumulate).backward()
    return {"loss_noise": loss.detach(), "t_noise": draw.t.float().mean()}


def _preview_model(training: Training, scale: float) -> AbstractContextManager[None]:
    if training.settings.lookahead.preview.model == "naive":
        return nullcontext()  # the base itself; the loss still counts alpha times, so that both previews weigh the same
    return child_at(training.networks.child, FAST_CHILD, scale)


def lookahead_step(training: Training, batch: Batch, draw: NoiseDraw, leaves: KeysValues, index: int) -> Figures:
    """Add the lookahead loss's gradient of micro-batch `index` (Eq. 3, Eq. 4)."""
    settings, lookahead, networks = training.settings, training.settings.lookahead, training.networks
    generator = generator_for("preview", settings.seed, index)
    scale = scale_at(lookahead.lora_scale, settings.seed, index)
    with (
        _preview_model(training, scale),
        appended(networks.bank, drop_tokens(leaves, settings.kv.token_drop, generator)),
    ):
        pixels = preview_pass(networks, batch, draw, lookahead.preview, generator)
        distance, found = lookahead_pass(networks, batch, pixels, lookahead.distance)
        counts = draw.weight * found if lookahead.landmarks == "detected_only" else draw.weight
        loss = lookahead_loss(counts * distance, scale, lookahead.times_scale)
        (loss * lookahead.weight / settings.accumulate).backward()
    distance = distance.detach()
    return {
        "loss_lookahead": loss.detach(),
        "distance": distance.mean(),
        "scale": torch.full_like(loss, scale, dtype=torch.float64),
        "t_lookahead": draw.t.float().mean(),
        "found": found.float().mean(),
    } | distance_by_timestep(distance, draw.t, training.timesteps)


def distance_by_timestep(distance: Tensor, t: Tensor, timesteps: int) -> Figures:
    """The mean distance of previews (B,) in each of BINS equal ranges of timesteps; nan where a range has none."""
    inside = t * BINS // timesteps == torch.arange(BINS, device=t.device)[:, None]  # (BINS, B)
    means = torch.where(inside, distance, 0).sum(1) / inside.sum(1)  # (BINS,)
    return {f"distance_t{number}": mean for number, mean in enumerate(means)}


def read(figures: list[Figures]) -> list[Row]:
    """The figures of micro-batches as numbers, in one transfer."""
    names = list(figures[0])
    table = torch.stack([torch.stack([one[name].double() for name in names]) for one in figures])  # (N, figures)
    return [dict(zip(names, row, strict=True)) for row in table.tolist()]


def micro_step(training: Training, index: int, progress: float) -> Figures:
    """Add the gradients of micro-batch `index`, after a share of the training, and return its figures.

    With shared timesteps the KV-encoder runs once for both losses, else once for each.
    """
    settings = training.settings
    batch = draw_index(training, index)
    draws = draw_both(batch.latents.shape, settings, training.timesteps, progress, index)
    if settings.lookahead.weight == 0:
        return _noise_alone(training, batch, draws, index)
    if settings.share_timesteps:
        with reference_pass(training.networks, batch, draws.noise) as leaves:
            row = noise_step(training, batch, draws.noise, leaves, index)
            return row | lookahead_step(training, batch, draws.lookahead, leaves, index)
    row = _noise_alone(training, batch, draws, index)
    with reference_pass(training.networks, batch, draws.lookahead) as leaves:
        return row | lookahead_step(training, batch, draws.lookahead, leaves, index)


def _noise_alone(training: Training, batch: Batch, draws: Draws, index: int) -> Figures:
    with reference_pass(training.networks, batch, draws.noise) as leaves:
        return noise_step(training, batch, draws.noise, leaves, index)


def draw_index(training: Training, index: int) -> Batch:
    """The pairs of micro-batch `index`."""
    settings = training.settings
    rows = training.pairs.draw(settings.batch, generator_for("pairs", settings.seed, index))
    return load_pairs(training.store, *rows, settings.lookahead.against)


def mean_row(rows: list[Row]) -> Row:
    """The mean of each figure over micro-batches; a range of timesteps may have no sample in some of them."""
    return {name: _mean([row[name] for row in rows], sparse=name.startswith("distance_t")) for name in rows[0]}


def _mean(values: list[float], sparse: bool) -> float:
    seen = [value for value in values if not (sparse and math.isnan(value))]
    return sum(seen) / len(seen) if seen else math.nan
