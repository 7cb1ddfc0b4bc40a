"""One trial: a short training with the drawn settings, and its judgement; with checks on the way where it may end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lookahead.artifacts import Log, digest, writing
from lookahead.config import Checkpoints, Search, Train, with_overrides
from lookahead.models.adapter import ADAPTER_FILE, save_adapter
from lookahead.models.kv_encoder import KV_FILE, save_kv_encoder
from lookahead.search.launch import Look, train_launched
from lookahead.search.space import Changes
from lookahead.training.checkpoint import State, load_checkpoint
from lookahead.training.fit import resume_folder, train
from lookahead.training.setup import open_training

Check = Callable[[Path, int], None]  # judges an encoder at a step, and may end the trial


def short_settings(search: Search, settings: Train, changes: Changes) -> Train:
    """The training of a trial: the world's numbers with the trial's changes, fewer steps and the study's seed.

    Raises:
        InputError: the values do not go together.
    """
    every = search.checks.every if search.mode == "constrained" else search.steps
    kept = max(1, search.steps // every)  # all: a launched training does not wait for its checks
    own: Changes = {"steps": search.steps, "seed": search.seed, "sample_every": search.steps}
    own |= {"checkpoint_every": every, "checkpoints_kept": kept}
    return with_overrides(settings, changes | own)


def full_settings(settings: Train, changes: Changes, seed: int) -> Train:
    """The training of a confirmation: at full length, with a fresh seed."""
    return with_overrides(settings, changes | {"seed": seed})


def tune(
    checkpoints: Checkpoints,
    settings: Train,
    features: Path,
    work: Path,
    log: Log,
    check: Check | None,
    launch: Sequence[str],
) -> Path:
    """Train into `work`, from the beginning unless it is there, and return the encoder's folder.

    `check` sees the encoder at every checkpoint before the last step. The words of `launch` begin a command that trains
    in processes of its own; without any, this process trains.

    Raises:
        InputError: as `training.fit.train`, or as `train_launched`.
    """
    if not (work / "metrics.json").exists():  # what a training writes last
        if launch:
            look = _looking(checkpoints, settings, features, work, check)
            train_launched(launch, checkpoints, settings, features, work, log, look)
        else:
            watched = log if check is None else _checking(checkpoints, settings, features, work, log, check)
            train(checkpoints, settings, features, work, watched)
        shutil.rmtree(resume_folder(work))
    return work / "encoder"


def _looking(checkpoints: Checkpoints, settings: Train, features: Path, work: Path, check: Check | None) -> Look:
    """What judges the encoder in a checkpoint of a training that goes on meanwhile."""

    def look(checkpoint: Path, step: int) -> None:
        if check is not None:
            alone = _apart(checkpoint, work.with_name("check") / "resume")
            check(encoder_at(checkpoints, settings, features, alone, work.with_name("check") / "encoder"), step)

    return look


def _apart(checkpoint: Path, folder: Path) -> Path:
    """A folder in which a checkpoint is the only one, as the newest of a folder is opened."""
    shutil.rmtree(folder, ignore_errors=True)
    with writing(folder):
        folder.mkdir(parents=True)
        (folder / checkpoint.name).symlink_to(checkpoint.resolve())
    return folder


def _checking(checkpoints: Checkpoints, settings: Train, features: Path, work: Path, log: Log, check: Check) -> Log:
    """A log that, one step after a checkpoint was written, judges the encoder in it."""
    seen: set[int] = set()

    def watched(row: object, step: int) -> None:
        log(row, step)  # type: ignore[arg-type]
        done = step - 1
        if done and done % settings.checkpoint_every == 0 and done not in seen:
            seen.add(done)
            check(
                encoder_at(checkpoints, settings, features, resume_folder(work), work.with_name("check") / "encoder"),
                done,
            )

    return watched


@torch.no_grad()
def encoder_at(checkpoints: Checkpoints, settings: Train, features: Path, resume: Path, folder: Path) -> Path:
    """Write the encoder that the newest checkpoint of a training holds.

    Raises:
        InputError: the checkpoint is damaged or of another training.
    """
    training = open_training(checkpoints, settings, features)
    state = State(training.weights, training.average, training.optimiser)
    load_checkpoint(resume, digest(settings.model_dump(mode="json")), state)
    for name, average in training.average.items():
        training.weights[name].copy_(average)
    save_adapter(folder / ADAPTER_FILE, training.networks.unet)
    if training.networks.kv is not None:
        save_kv_encoder(folder / KV_FILE, training.networks.kv)
    return folder
