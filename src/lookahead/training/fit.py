"""The training loop: from wherever it was left to the last step, with curves, samples and exact resume."""

from __future__ import annotations

import csv
from pathlib import Path

from tqdm import tqdm

from lookahead.artifacts import Log, atomic, digest, write_json
from lookahead.config import Checkpoints, Train, Variant
from lookahead.models.adapter import save_adapter
from lookahead.training.checkpoint import Curves, load_checkpoint, save_checkpoint
from lookahead.training.samples import draw_samples
from lookahead.training.update import Row, Training, open_training, train_step


def fit(training: Training, run: str, work: Path, state: Path, log: Log) -> Curves:
    """Train to the last step from wherever `state` left off; samples go to `work`.

    Raises:
        InputError: as `train_step` and `load_checkpoint`, or a file cannot be written.
    """
    settings = training.settings
    curves = load_checkpoint(state, run, training.weights, training.optimiser)
    bar = tqdm(total=settings.steps, initial=len(curves), desc=f"training {training.variant}")
    while True:
        done = len(curves)
        # The sample comes first: killed between the two, a resumed run draws it again.
        if done % settings.sample_every == 0 or done == settings.steps:
            path = work / "samples" / f"step_{done:04d}.png"
            draw_samples(training.pipe, training.networks, training.store, settings, path)
        if done and (done % settings.checkpoint_every == 0 or done == settings.steps):
            save_checkpoint(state, run, training.weights, training.optimiser, curves)
        if done == settings.steps:
            break
        curves.append(train_step(training, done))
        log(curves[-1], done + 1)
        bar.update()
        bar.set_postfix({name: f"{curves[-1][name]:.3f}" for name in ("loss_noise", "distance") if name in curves[-1]})
    bar.close()
    return curves


def _write_curves(path: Path, curves: Curves) -> None:
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", *curves[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in enumerate(curves, start=1))


def summary(training: Training, curves: Curves) -> Row:
    """The curves' means over the last tenth of the steps, and the sizes of the training."""
    last = curves[-max(1, len(curves) // 10) :]
    row = {name: sum(r[name] for r in last) / len(last) for name in last[0] if name not in ("learning_rate", "scale")}
    return row | {"steps": len(curves), "parameters": sum(weight.numel() for weight in training.weights.values())}


def train(checkpoints: Checkpoints, settings: Train, variant: Variant, features: Path, work: Path, log: Log) -> None:
    """Tune the untuned adapter and write `encoder/ip-adapter.safetensors`, `curves.csv`, `metrics.json`, `samples/`.

    Killed at any moment, it continues from the last checkpoint, which lies beside `work` and is never published, and
    ends with the same weights.

    Args:
        checkpoints: the world's pretrained parts.
        settings: the numbers of this training; both variants share them.
        variant: `noise_only` runs the same noise passes without the lookahead pass.
        features: the output of the stage `features`.
        work: the folder to build in.
        log: receives every row of the curves.

    Raises:
        InputError: an input is missing or damaged, a loss is not finite, or the disk is full.
    """
    training = open_training(checkpoints, settings, variant, features)
    state = work.with_name(f"{work.name}.resume") / "state.safetensors"
    work.mkdir(parents=True, exist_ok=True)
    state.parent.mkdir(parents=True, exist_ok=True)
    curves = fit(training, digest(settings.model_dump(mode="json"), variant), work, state, log)
    save_adapter(work / "encoder" / "ip-adapter.safetensors", training.networks.unet)
    _write_curves(work / "curves.csv", curves)
    write_json(work / "metrics.json", summary(training, curves))
