"""Several processes train one encoder: a step's micro-batches are dealt out, their gradients and figures put together.

A micro-batch derives from its index alone, so any number of processes makes the same step, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from lookahead.config import Train
from lookahead.errors import InputError
from lookahead.training.losses import Row
from lookahead.world.processes import Processes, add_up, gather


def check_shares(settings: Train, processes: Processes) -> None:
    """Refuse a number of processes that micro-batches, or frozen weights, cannot be dealt out to.

    Raises:
        InputError: `accumulate` is no multiple of it, or it is 1 and weights are to be shared out.
    """
    if settings.shard_weights and processes.count == 1:
        raise InputError(
            "train.shard_weights is true, but there is one process, which would hold all of them: start several "
            "(accelerate launch --multi_gpu --num_processes 2 stages/train.py), or set it to false"
        )
    if settings.accumulate % processes.count:
        raise InputError(
            f"train.accumulate is {settings.accumulate}, the micro-batches of a step, and {processes.count} processes "
            f"share them out: make it a multiple of {processes.count} (a step then sees batch x accumulate pairs)"
        )


def own_indices(settings: Train, step: int, processes: Processes) -> list[int]:
    """This process's micro-batches of a step."""
    indices = range(step * settings.accumulate, (step + 1) * settings.accumulate)
    return [index for index in indices if processes.mine(index)]


def sum_gradients(weights: Iterable[nn.Parameter], processes: Processes) -> None:
    """Replace the gradients by their sums over all processes.

    Raises:
        InputError: another process ended.
    """
    if processes.count > 1:
        add_up([_gradient(weight) for weight in weights], processes)


def put_together(rows: list[Row], processes: Processes) -> list[Row]:
    """The rows of all processes' micro-batches, by their index.

    Raises:
        InputError: another process ended.
    """
    names = list(rows[0])
    own = torch.tensor([[row[name] for name in names] for row in rows], dtype=torch.float64)  # (own, figures)
    every = gather(own, processes).transpose(0, 1).flatten(0, 1)  # (all, figures): index i is process i % N's
    return [dict(zip(names, row, strict=True)) for row in every.tolist()]


def _gradient(weight: nn.Parameter) -> torch.Tensor:
    """A weight's gradient; zeros where no micro-batch of this process reached it."""
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad
