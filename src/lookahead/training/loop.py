"""The training step and the loop; every process of a launch runs them, and the main one writes."""

from __future__ import annotations

import csv
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
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
from lookahead.training import losses
from lookahead.training.checkpoint import Curves, load_checkpoint, resume_folder, save_checkpoint
from lookahead.training.data import Batch, NoiseDraw, draw_both, generator_for, load_pairs, null_condition
from lookahead.training.losses import Figures, Row
from lookahead.training.networks import Training, open_training
from lookahead.world import FAST_CHILD, to_uint8
from lookahead.world.distributed import all_reduce_sum, distributed, gather_objects, is_main_process, own_share

OnCheckpoint = Callable[[Path, int], None]  # of an encoder's folder and its step; may raise to end the training
PREVIEWED = (0.5, 0.8)  # shares of the schedule at which samples show previews


def draw_batch(training: Training, index: int) -> Batch:
    """The pairs of micro-batch `index`."""
    generator = generator_for("pairs", training.settings.seed, index)
    rows = training.pairs.draw(training.settings.batch_size, generator)
    return load_pairs(training.store, *rows, training.settings.lookahead.against)


def backward(training: Training, index: int) -> Figures:
    """Add the gradients of micro-batch `index` to the trained weights', and return its figures.

    The KV-encoder's keys and values are leaves on which the losses gather gradients, before one backward pass takes
    these through the KV-encoder: one for both losses where they share their draws (§4.1).
    """
    settings, networks = training.settings, training.networks
    batch = draw_batch(training, index)
    draws = draw_both(batch.latents.shape, settings, training.timesteps, index, training.networks.previewed)
    keys_values = losses.encode_reference(networks, batch, draws.noise)
    leaves = as_leaves(keys_values)
    figures = losses.backward_noise_loss(training, batch, draws.noise, leaves, index)
    if settings.lookahead.weight > 0:
        if not settings.shares_draws:
            backward_through(keys_values, leaves)
            keys_values = losses.encode_reference(networks, batch, draws.lookahead)
            leaves = as_leaves(keys_values)
        figures |= losses.backward_lookahead_loss(training, batch, draws.lookahead, leaves, index)
    backward_through(keys_values, leaves)
    return figures


def train_step(training: Training, step: int) -> Row:
    """One optimizer step over its micro-batches, of which each process takes its share; returns the curves' row."""
    settings, optimizer, weights = training.settings, training.optimizer, list(training.weights.values())
    optimizer.zero_grad(set_to_none=True)
    indices = own_share(micro_batches(settings, step))
    figures = [backward(training, index) for index in indices]
    gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient  # the same weights have one in every process
    all_reduce_sum(gradients)
    norm = nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
    numbers = list(
        zip(indices, losses.read(figures), strict=True)
    )  # the first wait for a GPU, unless faces are detected
    rows, factor = dict(gather_objects(numbers)), lr_factor(settings, step)
    row = losses.mean_row([rows[index] for index in micro_batches(settings, step)])
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
    return range(step * settings.gradient_accumulation_steps, (step + 1) * settings.gradient_accumulation_steps)


def lr_factor(settings: Train, step: int) -> float:
    """The learning rates' factor: a linear warm-up, then constant, or linear or cosine down to 0."""
    warm = min(1.0, (step + 1) / max(1, settings.lr_warmup_steps))
    done = max(0.0, (step - settings.lr_warmup_steps) / max(1, settings.steps - settings.lr_warmup_steps))
    factors = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return warm * factors[settings.lr_scheduler]


def _check_finite(row: Row, step: int, training: Training) -> None:
    settings = training.settings
    for name, value in row.items():
        if math.isfinite(value) or name.startswith("distance_t"):
            continue
        rows = torch.cat([draw_batch(training, index).rows for index in micro_batches(settings, step)])
        good = step // settings.checkpoint_every * settings.checkpoint_every
        raise InputError(
            f"training broke down: {name} is {value} at step {step + 1}, with the pictures "
            f"{training.store.table.index[rows].tolist()} as targets; nothing is published, and "
            f"{f'the last good checkpoint is of step {good}' if good else 'there is no checkpoint yet'}. Lower "
            f"train.learning_rate ({settings.learning_rate}) or train.lookahead.weight ({settings.lookahead.weight})"
        )


def _previews(training: Training, batch: Batch, noise: Tensor) -> list[Tensor]:
    """Latents (K, C, h, w) of one-step previews of the noised targets, at each of PREVIEWED."""
    networks, previews = training.networks, []
    for share in PREVIEWED:
        t = torch.full((len(noise),), int(share * training.timesteps), device=noise.device)
        noisy = add_noise(networks.schedule, batch.latents, noise, t)
        keys_values = losses.encode_reference(networks, batch, NoiseDraw(t, noise, torch.ones(len(noise))))
        with child_at(networks.child, FAST_CHILD, 1.0), appended(networks.bank, keys_values):
            prediction = losses.predict(networks, noisy, t, batch.condition)
        previews.append(lcm_preview(networks.schedule, noisy, prediction, t))
    return previews


@torch.no_grad()
def draw_samples(training: Training) -> Image.Image:
    """A grid of the same people at every step: reference, target, previews, and what is drawn for its prompt."""
    settings, networks = training.settings, training.networks
    generator = generator_for("samples", settings.seed, 0)
    batch = load_pairs(training.store, *training.pairs.draw(settings.num_samples, generator))
    noise = torch.randn(batch.latents.shape, generator=generator).to(batch.latents.device)
    guidance = (image_guidance if networks.kv is None else kv_guidance)(settings.sample_guidance_scale)
    sampler = Sampler(training.pipe, settings.sample_num_inference_steps, guidance, networks.kv, networks.bank)
    with torch.compiler.set_stance("force_eager"):  # else each of these batch sizes would be compiled
        columns = [batch.reference.latents, batch.latents, *_previews(training, batch, noise)]
        unconditional = null_condition(training.store, len(noise))
        with losses.autocast(networks):
            columns.append(draw_latents(sampler, batch.condition, unconditional, noise, batch.reference, []))
    pixels = torch.cat([losses.decode(networks, column) for column in columns], dim=3)  # (K, 3, H, 5 W)
    return Image.fromarray(np.concatenate(to_uint8(pixels)))


def _swap_ema(training: Training) -> None:
    for name, average in training.ema.items():
        weight = training.weights[name]
        weight.data, training.ema[name] = average, weight.data


def save_encoder(training: Training, folder: Path) -> None:
    """Write `ip-adapter.safetensors` in IP-Adapter's layout and, with `kv.enabled`, `kv.safetensors`; EMA if any."""
    _swap_ema(training)
    try:
        save_adapter(folder / ADAPTER_FILE, training.networks.unet)
        if training.networks.kv is not None:
            save_kv_encoder(folder / KV_FILE, training.networks.kv)
    finally:
        _swap_ema(training)


def fit(
    training: Training, resume: Path, log: Log, on_checkpoint: OnCheckpoint | None = None, name: str = "training"
) -> Curves:
    """Train from the newest checkpoint in `resume` to the last step; checkpoints and samples are written there."""
    settings, main, curves = training.settings, is_main_process(), load_checkpoint(resume, training)
    start = len(curves)
    bar = tqdm(total=settings.steps, initial=start, desc=name, unit="step", disable=not main)
    for step in range(start, settings.steps + 1):
        last = step == settings.steps
        # The sample comes first: killed between the two, a resumed run draws it again.
        if main and (last or step % settings.sample_every == 0):
            with atomic(resume / "samples" / f"step_{step:04d}.png") as temporary:
                draw_samples(training).save(temporary, format="PNG")
        if main and step and (last or step % settings.checkpoint_every == 0):
            if step > start:
                save_checkpoint(resume, training, curves)
            if on_checkpoint is not None and not last:
                save_encoder(training, resume / "encoder")
                on_checkpoint(resume / "encoder", step)
        if last:
            break
        began = time.monotonic()
        curves.append(train_step(training, step))
        speed = settings.batch_size * settings.gradient_accumulation_steps / (time.monotonic() - began)
        log(losses.finite(curves[-1]) | {"images_per_second": speed}, step + 1)
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
    name: str = "training",
) -> None:
    """Tune the untuned adapter and write `encoder/`, `curves.csv`, `samples/` and, last, `metrics.json` into `work`.

    Killed at any moment, it continues from the last checkpoint and ends with the same weights. More `steps` continue a
    training that has ended, where its schedules are constant. Samples drawn before their own settings changed stay.

    `log` receives every row of the curves, and the speed; checkpoints lie in `resume`, by default beside `work`;
    `on_checkpoint` is called in the main process at every checkpoint before the last step; `name` is on its bar.
    """
    count, processes = settings.gradient_accumulation_steps, distributed().num_processes
    if count % processes:
        raise InputError(
            f"train.gradient_accumulation_steps is {count}, the micro-batches of a step, and {processes} processes "
            f"share them: make it a multiple of {processes} (each micro-batch has batch_size pairs)"
        )
    resume = resume or resume_folder(work)
    training = open_training(checkpoints, settings, features)
    curves = fit(training, resume, log, on_checkpoint, name)
    if is_main_process():
        _write_output(work, training, curves, resume)


def _write_output(work: Path, training: Training, curves: Curves, resume: Path) -> None:
    save_encoder(training, work / "encoder")
    for step in (*range(0, len(curves), training.settings.sample_every), len(curves)):
        name = Path("samples") / f"step_{step:04d}.png"
        if (resume / name).is_file():  # not where `sample_every` has changed
            with atomic(work / name) as temporary:
                shutil.copyfile(resume / name, temporary)
    with atomic(work / "curves.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", *curves[0]], lineterminator="\n")
        writer.writeheader()
        writer.writerows({"step": step, **losses.finite(row)} for step, row in enumerate(curves, start=1))
    last = losses.mean_row(curves[-max(1, len(curves) // 10) :])
    figures = losses.finite({name: value for name, value in last.items() if name not in ("learning_rate", "scale")})
    parameters = sum(weight.numel() for weight in training.weights.values())
    write_json(work / "metrics.json", figures | {"steps": len(curves), "parameters": parameters})
