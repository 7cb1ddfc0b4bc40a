"""Seeing, and changing, what a sampler does at each of its steps."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

Change = Callable[[Tensor, Tensor, Tensor], Tensor]
"""The prediction to go on with, from the prediction (B, C, h, w), t () and the U-Net's noisy latents (B, C, h, w)."""
Callback = Callable[[int, int, Tensor], None]
"""Told after each step: its number from 0, its timestep, and the latents (B, C, h, w) after it."""


def watch(scheduler: Any, change: Change | None, callback: Callback | None) -> None:
    """Let `change` and `callback` take part in every `step` of this scheduler, which should serve one drawing only.

    The signature stays, because diffusers asks it what a scheduler's step accepts.
    """
    step, done = scheduler.step, 0

    @functools.wraps(step)
    def watched(prediction: Tensor, t: Tensor, latents: Tensor, *rest: Any, **named: Any) -> Any:
        nonlocal done
        if change is not None:
            prediction = change(prediction, t, scheduler.scale_model_input(latents, t))
        result = step(prediction, t, latents, *rest, **named)
        if callback is not None:
            callback(done, int(t), result.prev_sample)
        done += 1
        return result

    scheduler.step = watched
