"""One optimiser step: the gradients of its micro-batches, checked before they are used."""

from __future__ import annotations

import math

import torch
from torch import nn

from lookahead.errors import InputError
from lookahead.training.losses import Row, draw_index, mean_row, micro_step, read
from lookahead.training.rates import rate_factor
from lookahead.training.setup import Training
from lookahead.training.shares import own_indices, put_together, sum_gradients
from lookahead.world.processes import launched


def _check_finite(row: Row, step: int, training: Training) -> None:
    named = {name: value for name, value in row.items() if not name.startswith("distance_t")}
    bad = {name: value for name, value in named.items() if not math.isfinite(value)}
    if not bad:
        return
    settings = training.settings
    indices = range(step * settings.accumulate, (step + 1) * settings.accumulate)
    pictures = torch.cat([draw_index(training, index).rows for index in indices])
    ids = training.store.table.index[pictures].tolist()
    kept = step // settings.checkpoint_every * settings.checkpoint_every
    name, value = next(iter(bad.items()))
    raise InputError(
        f"training broke down: {name} is {value} at step {step + 1}, with the pictures {ids} as targets; nothing is "
        f"published, and the last good checkpoint is of step {kept}. Lower train.learning_rate "
        f"({settings.learning_rate}) or train.lookahead.weight ({settings.lookahead.weight})"
    )


def train_step(training: Training, step: int) -> Row:
    """One optimiser step over `accumulate` micro-batches, those of other processes too; returns the curves' row.

    Raises:
        InputError: a loss or the gradient is not finite, or another process ended; the weights are left as they were.
    """
    settings, factor = training.settings, rate_factor(training.settings, step)
    progress = step / max(1, settings.steps - 1)
    training.optimiser.zero_grad(set_to_none=True)
    with training.shards.backward():
        figures = [micro_step(training, index, progress) for index in own_indices(settings, step, launched())]
    sum_gradients(training.weights.values(), launched())
    norm = nn.utils.clip_grad_norm_(training.weights.values(), settings.clip)
    rows = put_together(read(figures), launched())  # the first thing in a step that waits for a GPU
    row = mean_row(rows) | {"learning_rate": settings.learning_rate * factor, "gradient_norm": norm.item()}
    _check_finite(row, step, training)
    for group in training.optimiser.param_groups:
        group["lr"] = group["peak"] * factor
    training.optimiser.step()
    _follow(training, step)
    return row


def _follow(training: Training, step: int) -> None:
    """Move the running mean of the weights towards them, faster at the beginning."""
    if training.average:
        keep = min(training.settings.ema, (step + 1) / (step + 10))
        now = [weight.detach() for weight in training.weights.values()]
        torch._foreach_lerp_(list(training.average.values()), now, 1 - keep)
