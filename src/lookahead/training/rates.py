"""How the learning rates go over the training."""

from __future__ import annotations

import math

from lookahead.config import Train


def rate_factor(settings: Train, step: int) -> float:
    """What the learning rates are multiplied with: a linear warm-up, then constant (official recipe), linear or cosine.

    The last two fall to 0 at the end of the training.
    """
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    done = max(0.0, (step - settings.warmup) / max(1, settings.steps - settings.warmup))
    return warm * {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}[settings.schedule]
