"""The training loop: from the last checkpoint to the last step, with curves, samples and checkpoints.

A step is read from `train_step` on; every process of a launch runs it, and the main one writes.
"""

from __future__ import annotations

import csv
import math
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from lookahead.artifacts import Log, atomic, write_json
from lookahead.config import Checkpoints, Train
from lookahead.errors import InputError
from lookahead.method.attention import appended
from lookahead.method.diffusion import add_noise
from lookahead.method.preview import lcm_preview
from lookahead.method.shared_pass import as_leaves, backward_through
from lookahead.models.adapter import ADAPTER_FILE, save_adapter
from lookahead.models.fast_child import child_at
from lookahead.models.kv_encoder import KV_FILE, save_kv_encoder
from lookahead.sampling.loop import Sampler, draw_latents, image_guidance, kv_guidance
from lookahead.training.checkpoint import Curves, load_checkpoint, resume_folder, save_checkpoint
from lookahead.training.data import Batch, NoiseDraw, draw_both, generator_for, load_pairs, null_condition
from lookahead.training.losses import (
    Figures,
    Row,
    autocast,
    backward_lookahead_loss,
    backward_noise_loss,
    decode,
    encode_reference,
    finite,
    mean_row,
    predict,
    read,
)
from lookahead.training.networks import Training, open_training
from lookahead.world import FAST_CHILD
from lookahead.world.distributed import all_reduce_sum, distributed, gather_objects, is_main_process, own_share

OnCheckpoint = Callable[[Path, int], None]
"""Called with the folder of an encoder and its step; may raise to end the training."""
PREVIEWED = (0.5, 0.8)  # shares of the schedule at which samples show previews


def draw_batch(training: Training, index: int) -> Batch:
    """The pairs of micro-batch `index`."""
    settings = training.settings
    rows = training.pairs.draw(settings.batch_size, generator_for("pairs", settings.seed, index))
    return load_pairs(training.store, *rows, settings.lookahead.against)


def backward(training: Training, index: int) -> Figures:
    """Add the gradients of micro-batch `index` to the trained weights', and return its figures.

    The KV-encoder's keys and values are leaves on which the losses gather gradients, before one backward pass takes
    these through the KV-encoder: one for both losses where they share their draws (§4.1).
    """
    settings, networks = training.settings, training.networks
    batch = draw_batch(training, index)
    draws = draw_both(batch.latents.shape, settings, training.timesteps, index)
    keys_values = encode_reference(networks, batch, draws.noise)
    leaves = as_leaves(keys_values)
    figures = backward_noise_loss(training, batch, draws.noise, leaves, index)
    if settings.lookahead.weight > 0:
        if not settings.shares_draws:
            backward_through(keys_values, leaves)
            keys_values = encode_reference(networks, batch, draws.lookahead)
            leaves = as_leaves(keys_values)
        figures |= backward_lookahead_loss(training, batch, draws.lookahead, leaves, index)
    backward_through(keys_values, leaves)
    return figures


def train_step(training: Training, step: int) -> Row:
    """One optimizer step over its micro-batches, of which each process takes its share; returns the curves' row.

    Raises:
        InputError: a loss or the gradient is not finite, or another process ended; the weights are left as they were.
    """
    settings, optimizer, weights = training.settings, training.optimizer, list(training.weights.values())
    optimizer.zero_grad(set_to_none=True)
    indices = own_share(micro_batches(settings, step))
    figures = [backward(training, index) for index in indices]
    for weight in weights:
        weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad  # the same in every process
    all_reduce_sum([weight.grad for weight in weights if weight.grad is not None])
    norm = nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
    rows = dict(gather_objects(list(zip(indices, read(figures), strict=True))))  # the first wait for a GPU in a step
    factor = lr_factor(settings, step)
    row = mean_row([rows[index] for index in micro_batches(settings, step)])
    row |= {"learning_rate": settings.learning_rate * factor, "gradient_norm": norm.item()}
    _check_finite(row, step, training)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor
    optimizer.step()
    if training.ema:
        decay = min(settings.ema_decay, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(training.ema.values()), [weight.detach() for weight in weights], 1 - decay)
    return row


def micro_batches(settings: Train, step: int) -> range:
    """The indices of a step's micro-batches; each one derives from its index alone, in whatever process."""
    count = settings.gradient_accumulation_steps
    return range(step * count, (step + 1) * count)


def lr_factor(settings: Train, step: int) -> float:
    """The learning rates' factor: a linear warm-up, then constant (official recipe), or linear or cosine down to 0."""
    warm = min(1.0, (step + 1) / max(1, settings.lr_warmup_steps))
    done = max(0.0, (step - settings.lr_warmup_steps) / max(1, settings.steps - settings.lr_warmup_steps))
    factors = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return warm * factors[settings.lr_scheduler]


def _check_finite(row: Row, step: int, training: Training) -> None:
    settings = training.settings
    bad = [n for n, value in row.items() if not math.isfinite(value) and not n.startswith("distance_t")]
    if not bad:
        return
    rows = torch.cat([draw_batch(training, index).rows for index in micro_batches(settings, step)])
    raise InputError(
        f"training broke down: {bad[0]} is {row[bad[0]]} at step {step + 1}, with the pictures "
        f"{training.store.table.index[rows].tolist()} as targets; nothing is published, and the last good checkpoint "
        f"is of step {step // settings.checkpoint_every * settings.checkpoint_every}. Lower train.learning_rate "
        f"({settings.learning_rate}) or train.lookahead.weight ({settings.lookahead.weight})"
    )


def _previews(training: Training, batch: Batch, noise: Tensor) -> list[Tensor]:
    """Latents (K, C, h, w) of one-step previews of the noised targets, at each of PREVIEWED."""
    networks, previews = training.networks, []
    for share in PREVIEWED:
        t = torch.full((len(noise),), int(share * training.timesteps), device=noise.device)
        noisy = add_noise(networks.schedule, batch.latents, noise, t)
        keys_values = encode_reference(networks, batch, NoiseDraw(t, noise, torch.ones(len(noise))))
        with child_at(networks.child, FAST_CHILD, 1.0), appended(networks.bank, keys_values):
            prediction = predict(networks, noisy, t, batch.condition)
        previews.append(lcm_preview(networks.schedule, noisy, prediction, t))
    return previews


@torch.no_grad()
def draw_samples(training: Training) -> Image.Image:
    """A grid, one row a person: reference, target, its previews, and what the encoder now draws for its prompt.

    The people, prompts and noise are the same at every step.
    """
    settings, networks = training.settings, training.networks
    generator = generator_for("samples", settings.seed, 0)
    batch = load_pairs(training.store, *training.pairs.draw(settings.num_samples, generator))
    noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents.device)
    guidance = (image_guidance if networks.kv is None else kv_guidance)(settings.sample_guidance_scale)
    sampler = Sampler(training.pipe, settings.sample_num_inference_steps, guidance, networks.kv, networks.bank)
    with torch.compiler.set_stance("force_eager"):  # else each of these batch sizes would be compiled
        columns = [batch.reference.latents, batch.latents, *_previews(training, batch, noise)]
        unconditional = null_condition(training.store, len(noise))
        with autocast(networks):
            columns.append(draw_latents(sampler, batch.condition, unconditional, noise, batch.reference, []))
    pixels = torch.cat([decode(networks, column).clamp(-1, 1).cpu() for column in columns], dim=3)  # (K, 3, H, 5 W)
    grid = torch.cat(list(pixels), dim=1).permute(1, 2, 0)  # (K H, 5 W, 3)
    return Image.fromarray(((grid + 1) * 127.5).round().byte().numpy())


def _sample_path(folder: Path, step: int) -> Path:
    return folder / "samples" / f"step_{step:04d}.png"


def _is_due(step: int, every: int, settings: Train) -> bool:
    return step % every == 0 or step == settings.steps


@contextmanager
def _ema_weights(training: Training) -> Iterator[None]:
    """The trained weights are their running mean inside, if there is one."""
    before = {name: training.weights[name].detach().clone() for name in training.ema}
    with torch.no_grad():
        for name, average in training.ema.items():
            training.weights[name].copy_(average)
        try:
            yield
        finally:
            for name, weight in before.items():
                training.weights[name].copy_(weight)


def save_encoder(training: Training, folder: Path) -> None:
    """Write `ip-adapter.safetensors` in IP-Adapter's layout and, with `kv.enabled`, `kv.safetensors`.

    Raises:
        InputError: the disk is full.
    """
    with _ema_weights(training):
        save_adapter(folder / ADAPTER_FILE, training.networks.unet)
        if training.networks.kv is not None:
            save_kv_encoder(folder / KV_FILE, training.networks.kv)


def fit(training: Training, resume: Path, log: Log, on_checkpoint: OnCheckpoint | None = None) -> Curves:
    """Train from the newest checkpoint in `resume` to the last step; checkpoints and samples are written there.

    Raises:
        InputError: as `train_step` and `load_checkpoint`, or a file cannot be written.
    """
    settings, main = training.settings, is_main_process()
    curves = load_checkpoint(resume, training)
    begun = len(curves)
    bar = tqdm(total=settings.steps, initial=begun, desc="training", unit="step", disable=not main)
    while True:
        done = len(curves)
        # The sample comes first: killed between the two, a resumed run draws it again.
        if main and _is_due(done, settings.sample_every, settings):
            with atomic(_sample_path(resume, done)) as temporary:
                draw_samples(training).save(temporary, format="PNG")
        if main and done and _is_due(done, settings.checkpoint_every, settings):
            if done > begun:
                save_checkpoint(resume, training, curves)
            if on_checkpoint is not None and done < settings.steps:
                save_encoder(training, resume / "encoder")
                on_checkpoint(resume / "encoder", done)
        if done == settings.steps:
            break
        started = time.monotonic()
        curves.append(train_step(training, done))
        speed = settings.batch_size * settings.gradient_accumulation_steps / (time.monotonic() - started)
        log(finite(curves[-1]) | {"images_per_second": speed}, done + 1)
        bar.update()
        bar.set_postfix({name: f"{curves[-1][name]:.3f}" for name in ("loss_noise", "distance") if name in curves[-1]})
    bar.close()
    return curves


def train(
    checkpoints: Checkpoints,
    settings: Train,
    features: Path,
    work: Path,
    log: Log,
    resume: Path | None = None,
    on_checkpoint: OnCheckpoint | None = None,
) -> None:
    """Tune the untuned adapter and write `encoder/`, `curves.csv`, `samples/` and, last, `metrics.json`.

    Killed at any moment, it continues from the last checkpoint and ends with the same weights. More `steps` continue a
    training that has ended, where its schedules are constant. Samples that were drawn before a change of the samples'
    own settings stay as they are.

    Args:
        checkpoints: the world's pretrained parts.
        settings: the numbers of this training; with a weight of 0 the lookahead loss is not computed.
        features: the output of the stage `features`.
        work: the folder to build in.
        log: receives every row of the curves, and the speed.
        resume: the folder for checkpoints, never published; by default `resume_folder(work)`.
        on_checkpoint: is called in the main process with the encoder at every checkpoint before the last step.

    Raises:
        InputError: an input is missing or damaged, a loss is not finite, or the disk is full.
    """
    count, processes = settings.gradient_accumulation_steps, distributed().num_processes
    if count % processes:
        raise InputError(
            f"train.gradient_accumulation_steps is {count}, the micro-batches of a step, and {processes} processes "
            f"share them: make it a multiple of {processes} (a step sees batch_size x "
            "gradient_accumulation_steps pairs)"
        )
    resume = resume or resume_folder(work)
    training = open_training(checkpoints, settings, features)
    curves = fit(training, resume, log, on_checkpoint)
    if is_main_process():
        _write_output(work, training, curves, resume)


def _write_output(work: Path, training: Training, curves: Curves, resume: Path) -> None:
    settings = training.settings
    save_encoder(training, work / "encoder")
    for step in (step for step in range(settings.steps + 1) if _is_due(step, settings.sample_every, settings)):
        if (source := _sample_path(resume, step)).is_file():
            with atomic(_sample_path(work, step)) as temporary:
                shutil.copyfile(source, temporary)
    with atomic(work / "curves.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", *curves[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": step, **finite(row)} for step, row in enumerate(curves, start=1))
    last = mean_row(curves[-max(1, len(curves) // 10) :])
    figures = finite({name: value for name, value in last.items() if name not in ("learning_rate", "scale")})
    parameters = sum(weight.numel() for weight in training.weights.values())
    write_json(work / "metrics.json", figures | {"steps": len(curves), "parameters": parameters})
