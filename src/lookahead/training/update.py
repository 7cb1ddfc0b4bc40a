"""One optimiser step: the gradients of its micro-batches, checked before they are used."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lookahead.config import Checkpoints, Train, Variant
from lookahead.data.store import FeatureStore, open_features
from lookahead.errors import InputError
from lookahead.method.lookahead import lookahead_loss
from lookahead.models.adapter import adapter_parameters
from lookahead.models.fast_child import child_at
from lookahead.training.batches import draw_batch, no_image, without_some
from lookahead.training.draws import (
    draw_kept,
    draw_noise,
    generator_for,
    lookahead_density,
    noise_pass_density,
    scale_at,
)
from lookahead.training.networks import open_networks
from lookahead.training.step import Batch, Networks, lookahead_pass, noise_pass
from lookahead.world import FAST_CHILD, Pipeline

Row = dict[str, float]


@dataclass(frozen=True)
class Training:
    """What stays the same from step to step."""

    pipe: Pipeline
    networks: Networks
    store: FeatureStore
    settings: Train
    variant: Variant
    weights: dict[str, nn.Parameter]
    optimiser: torch.optim.AdamW
    noise_density: Tensor  # (T,)
    lookahead_density: Tensor  # (T,)


def open_training(checkpoints: Checkpoints, settings: Train, variant: Variant, features: Path) -> Training:
    """Open the networks and the features, and make the optimiser.

    Raises:
        InputError: a checkpoint or a file of features is missing or damaged.
    """
    store = open_features(features)
    pipe, networks = open_networks(checkpoints, settings.gradient_checkpointing)
    weights = adapter_parameters(networks.unet)
    timesteps = len(networks.schedule.alphas_cumprod)
    return Training(
        pipe=pipe,
        networks=networks,
        store=store,
        settings=settings,
        variant=variant,
        weights=weights,
        optimiser=torch.optim.AdamW(
            weights.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        ),
        noise_density=noise_pass_density(settings.noise_density, timesteps),
        lookahead_density=lookahead_density(settings.lookahead, timesteps),
    )


def noise_step(training: Training, batch: Batch, index: int) -> Row:
    """Add the noise loss's gradient of micro-batch `index`; the same in both variants."""
    settings, generator = training.settings, generator_for("noise_pass", training.settings.seed, index)
    draw = draw_noise(batch.latents, training.noise_density, generator)
    kept = draw_kept(settings.batch, settings.image_drop, generator)
    features = without_some(batch.image_features, no_image(training.store), kept)
    loss = noise_pass(training.networks, batch, draw, features).mean()
    (loss / settings.accumulate).backward()
    return {"loss_noise": loss.item(), "t_noise": draw.t.float().mean().item()}


def _preview_model(training: Training, scale: float) -> AbstractContextManager[None]:
    if training.settings.lookahead.preview == "naive":
        return nullcontext()  # the base itself; the loss still counts alpha times, so that both previews weigh the same
    return child_at(training.networks.child, FAST_CHILD, scale)


def lookahead_step(training: Training, batch: Batch, index: int) -> Row:
    """Add the lookahead loss's gradient of micro-batch `index` (Eq. 3, Eq. 4)."""
    settings, lookahead = training.settings, training.settings.lookahead
    generator = generator_for("lookahead_pass", settings.seed, index)
    draw = draw_noise(batch.latents, training.lookahead_density, generator)
    scale = scale_at(lookahead.lora_scale, settings.seed, index)
    with _preview_model(training, scale):
        distance = lookahead_pass(training.networks, batch, draw)
        loss = lookahead_loss(distance, scale, lookahead.times_scale)
        (loss * lookahead.weight / settings.accumulate).backward()
    t = draw.t.float().mean().item()
    return {"loss_lookahead": loss.item(), "distance": distance.mean().item(), "scale": scale, "t_lookahead": t}


def micro_step(training: Training, index: int) -> Row:
    """Add the gradients of micro-batch `index` and return its figures."""
    generator = generator_for("pairs", training.settings.seed, index)
    batch = draw_batch(training.store, training.settings.batch, generator)
    row = noise_step(training, batch, index)
    return row | lookahead_step(training, batch, index) if training.variant == "lookahead" else row


def learning_rate(settings: Train, step: int) -> float:
    """A linear warm-up, then constant (official recipe)."""
    return settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup))


def _check_finite(row: Row, step: int, settings: Train) -> None:
    bad = {name: value for name, value in row.items() if not math.isfinite(value)}
    if bad:
        name, value = next(iter(bad.items()))
        raise InputError(
            f"training broke down: {name} is {value} at step {step + 1}; nothing is published. Lower "
            f"train.learning_rate ({settings.learning_rate}) or train.lookahead.weight ({settings.lookahead.weight})"
        )


def train_step(training: Training, step: int) -> Row:
    """One optimiser step over `accumulate` micro-batches; returns the curves' row.

    Raises:
        InputError: a loss or the gradient is not finite; the weights are left as they were.
    """
    settings, rate = training.settings, learning_rate(training.settings, step)
    training.optimiser.zero_grad(set_to_none=True)
    rows = [micro_step(training, step * settings.accumulate + micro) for micro in range(settings.accumulate)]
    norm = nn.utils.clip_grad_norm_(training.weights.values(), settings.clip)
    row = {name: sum(r[name] for r in rows) / len(rows) for name in rows[0]}
    row |= {"learning_rate": rate, "gradient_norm": norm.item()}
    _check_finite(row, step, settings)
    for group in training.optimiser.param_groups:
        group["lr"] = rate
    training.optimiser.step()
    return row
