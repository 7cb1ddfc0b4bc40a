"""The training loop: from wherever it was left to the last step, with curves, samples and exact resume."""

from __future__ import annotations

import csv
import json
import math
import time
from pathlib import Path

import torch
from tqdm import tqdm

from lookahead.artifacts import Log, atomic, digest, write_json
from lookahead.config import Checkpoints, Train
from lookahead.models.adapter import ADAPTER_FILE, save_adapter
from lookahead.models.kv_encoder import KV_FILE, save_kv_encoder
from lookahead.training.checkpoint import Curves, State, load_checkpoint, save_checkpoint
from lookahead.training.losses import Row, mean_row
from lookahead.training.samples import draw_samples, save_samples
from lookahead.training.setup import Training, open_training
from lookahead.training.shares import check_shares
from lookahead.training.update import train_step
from lookahead.world.processes import broadcast, launched


def fit(training: Training, work: Path, log: Log) -> Curves:
    """Train to the last step from wherever the checkpoints in `resume_folder(work)` left off; samples go to `work`.

    Of several processes only the first one writes and logs.

    Raises:
        InputError: as `train_step` and `load_checkpoint`, or a file cannot be written.
    """
    settings, first = training.settings, launched().first
    run, folder = digest(settings.model_dump(mode="json")), resume_folder(work)
    state = State(training.weights, training.average, training.optimiser)
    curves = load_checkpoint(folder, run, state)
    bar = tqdm(total=settings.steps, initial=len(curves), desc=work.name, unit="step", disable=not first)
    while True:
        done = len(curves)
        # The sample comes first: killed between the two, a resumed run draws it again.
        if done % settings.sample_every == 0 or done == settings.steps:
            _sample(training, work / "samples" / f"step_{done:04d}.png", first)
        if first and done and (done % settings.checkpoint_every == 0 or done == settings.steps):
            save_checkpoint(folder, run, state, curves, settings.checkpoints_kept)
        if done == settings.steps:
            break
        started = time.monotonic()
        curves.append(train_step(training, done))
        speed = settings.batch * settings.accumulate / (time.monotonic() - started)
        log(finite(curves[-1]) | {"images_per_second": speed}, done + 1)
        bar.update()
        bar.set_postfix({name: f"{curves[-1][name]:.3f}" for name in ("loss_noise", "distance") if name in curves[-1]})
    bar.close()
    return curves


def _sample(training: Training, path: Path, first: bool) -> None:
    """Draw and write samples in the first process; where weights are shared out, all have to draw."""
    if first or training.shards.of_blocks:
        grid = draw_samples(training)
        if first:
            save_samples(path, grid)


def finite(row: Row) -> Row:
    """The figures that are there: a range of timesteps may have had no sample."""
    return {name: value for name, value in row.items() if math.isfinite(value)}


def _write_curves(path: Path, curves: Curves) -> None:
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", *curves[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": step, **finite(row)} for step, row in enumerate(curves, start=1))


def summary(training: Training, curves: Curves) -> Row:
    """The curves' means over the last tenth of the steps, and the sizes of the training."""
    last = curves[-max(1, len(curves) // 10) :]
    row = {name: value for name, value in mean_row(last).items() if name not in ("learning_rate", "scale")}
    return finite(row) | {
        "steps": len(curves),
        "parameters": sum(weight.numel() for weight in training.weights.values()),
    }


def train(checkpoints: Checkpoints, settings: Train, features: Path, work: Path, log: Log) -> None:
    """Tune the untuned adapter and write `encoder/`, `curves.csv`, `metrics.json` and `samples/`.

    `encoder/` holds `ip-adapter.safetensors` in IP-Adapter's layout and, with `kv.enabled`, `kv.safetensors`. Killed at
    any moment, it continues from the last checkpoint, which lies beside `work` and is never published, and ends with
    the same weights.

    Args:
        checkpoints: the world's pretrained parts.
        settings: the numbers of this training; without weight for the lookahead loss, its pass is not run.
        features: the output of the stage `features`.
        work: the folder to build in.
        log: receives every row of the curves, and the speed.

    Raises:
        InputError: an input is missing or damaged, a loss is not finite, or the disk is full.
    """
    check_shares(settings, launched())
    for folder in (work, resume_folder(work)):
        folder.mkdir(parents=True, exist_ok=True)
    told = {"checkpoints": checkpoints.model_dump(), "settings": settings.model_dump()}
    broadcast(json.dumps(told | {"features": str(features.resolve()), "work": str(work.resolve())}), launched())
    training = open_training(checkpoints, settings, features)
    curves = fit(training, work, log)
    _publish_average(training)
    save_adapter(work / "encoder" / ADAPTER_FILE, training.networks.unet)
    if training.networks.kv is not None:
        save_kv_encoder(work / "encoder" / KV_FILE, training.networks.kv)
    _write_curves(work / "curves.csv", curves)
    write_json(work / "metrics.json", summary(training, curves))


def assist() -> None:
    """Take this process's share of the training that the first process begins, as it tells.

    Raises:
        InputError: as `train`, or another process ended.
    """
    told = json.loads(broadcast("", launched()))
    checkpoints, settings = Checkpoints.model_validate(told["checkpoints"]), Train.model_validate(told["settings"])
    training = open_training(checkpoints, settings, Path(told["features"]))
    fit(training, Path(told["work"]), lambda _row, _step: None)


def resume_folder(work: Path) -> Path:
    """Where the checkpoints of the training in `work` lie: beside it, never published."""
    return work.with_name(f"{work.name}.resume")


def _publish_average(training: Training) -> None:
    with torch.no_grad():
        for name, average in training.average.items():
            training.weights[name].copy_(average)
