"""One trial: a short training with the drawn settings, and its judgement; with checks on the way where it may end."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from lookahead.artifacts import Log
from lookahead.config import Checkpoints, Search, Train, with_overrides
from lookahead.search.space import Changes
from lookahead.training.checkpoint import resume_folder
from lookahead.training.loop import train

Check = Callable[[Path, int], None]  # judges an encoder at a step, and may end the trial


def short_settings(search: Search, settings: Train, changes: Changes) -> Train:
    """The training of a trial: the world's numbers with the trial's changes, fewer steps and the study's seed.

    Raises:
        InputError: the values do not go together.
    """
    every = search.checks.every if search.mode == "constrained" else search.steps
    own: Changes = {"steps": search.steps, "seed": search.seed, "sample_every": search.steps}
    own |= {"checkpoint_every": every, "checkpoints_total_limit": 1}
    return with_overrides(settings, changes | own)


def full_settings(settings: Train, changes: Changes, seed: int) -> Train:
    """The training of a confirmation: at full length, with a fresh seed."""
    return with_overrides(settings, changes | {"seed": seed})


def tune(checkpoints: Checkpoints, settings: Train, features: Path, work: Path, log: Log, check: Check | None) -> Path:
    """Train into `work`, from the beginning unless it is there, and return the encoder's folder.

    `check` sees the encoder at every checkpoint before the last step, and may end the trial.

    Raises:
        InputError: as `training.loop.train`.
    """
    if not (work / "metrics.json").exists():  # what a training writes last
        train(checkpoints, settings, features, work, log, on_checkpoint=check)
        shutil.rmtree(resume_folder(work))
    return work / "encoder"
