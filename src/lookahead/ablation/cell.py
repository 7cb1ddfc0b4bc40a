"""One cell of the ablation: a row's training with one seed, and its evaluation by full and by few-step sampling."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pandas as pd

from lookahead.artifacts import Log, write_json
from lookahead.config import Ablation, Checkpoints, Evaluate, Row, Train, with_overrides
from lookahead.evaluation.panel import Panel, draw_once, judged, open_panel, open_sampler
from lookahead.evaluation.store import adapter_key
from lookahead.evaluation.tables import PER_IMAGE, save_rows
from lookahead.models.fast_child import child_at, lora_layers
from lookahead.models.kv_encoder import KV_FILE, new_kv_encoder, save_kv_encoder
from lookahead.sampling.loop import Sampler, image_guidance, kv_guidance, prepare
from lookahead.training.checkpoint import resume_folder
from lookahead.training.loop import train
from lookahead.world import FAST_CHILD, Pipeline, attach_fast_child, open_denoiser, open_pipeline

FULL, FAST = "full", "fast"
SAMPLERS = (FULL, FAST)
ENCODER = "encoder"


def settings_of(study: Ablation, row: str, seed: int, settings: Train) -> Train:
    """The training of one cell: the world's numbers with the row's changes and the cell's seed.

    Raises:
        InputError: a change names no parameter, or its value is out of range.
    """
    return with_overrides(settings, study.changes(row) | {"seed": seed})


def encoder_of(
    checkpoints: Checkpoints, row: Row, settings: Train, features: Path, work: Path, log: Log
) -> Path | None:
    """Train a cell's encoder in `work`, or nothing where the adapter stays untuned; returns its folder.

    Raises:
        InputError: as `train`.
    """
    if row.tuned == "nothing":
        return None
    training = work / "training"
    if not (training / "metrics.json").exists():  # what a training writes last
        train(checkpoints, settings, features, training, log)
        shutil.rmtree(resume_folder(training))
    if row.tuned == "adapter":
        kv = settings.kv
        untuned = new_kv_encoder(open_denoiser(checkpoints).unet, kv.rank, kv.shared_rank, settings.seed)
        save_kv_encoder(training / ENCODER / KV_FILE, untuned)  # its LoRAs change nothing yet: the base's own keys
    return training / ENCODER


def judge_cell(
    checkpoints: Checkpoints, study: Ablation, settings: Evaluate, encoder: Path | None, work: Path, store: Path
) -> pd.DataFrame:
    """Draw and judge everybody by both samplers: one row a picture, the column `sampler` says by which.

    Writes `per_image.parquet` and `pictures/` into `work`; pictures that `store` holds are not drawn again.

    Raises:
        InputError: portraits, prompts or a checkpoint are missing or wrong.
    """
    protocol = study.protocol(settings)
    pipe = open_pipeline(checkpoints)
    panel = open_panel(checkpoints, protocol, pipe)
    tables = []
    for name in SAMPLERS:
        fast, folder = study.fast_steps if name == FAST else None, work / "pictures" / name
        ready = partial(_ready, panel, pipe, encoder, fast)
        draw_once(panel, ready, name, panel.shelf(store, adapter_key(checkpoints, encoder), fast), folder)
        tables.append(judged(panel, name, folder))
    table = pd.concat(tables, ignore_index=True).rename(columns={"method": "sampler"})
    return save_rows(table, work / PER_IMAGE)


@contextmanager
def _ready(panel: Panel, pipe: Pipeline, encoder: Path | None, fast_steps: int | None) -> Iterator[Sampler]:
    """The encoder in full sampling, or with the fast child in a few LCM steps without guidance, which it has learnt."""
    checkpoints, protocol = panel.checkpoints, panel.protocol
    full = open_sampler(checkpoints, pipe, protocol, encoder)
    if fast_steps is None:
        yield full
        return
    attach_fast_child(pipe, checkpoints)
    guidance = image_guidance(1.0) if full.kv is None else kv_guidance(1.0)
    with child_at(lora_layers(pipe.unet, FAST_CHILD), FAST_CHILD, 1.0):
        yield prepare(pipe, "LCMScheduler", fast_steps, protocol.adapter_scale, guidance, full.kv)


def build_cell(
    checkpoints: Checkpoints,
    study: Ablation,
    row: str,
    settings: Train,
    evaluate: Evaluate,
    features: Path,
    work: Path,
    log: Log,
    store: Path,
) -> None:
    """Train and judge one cell into `work`: `training/`, `pictures/`, `per_image.parquet`, `metrics.json`.

    Raises:
        InputError: as `train` and `judge_cell`.
    """
    encoder = encoder_of(checkpoints, study.rows[row], settings, features, work, log)
    table = judge_cell(checkpoints, study, evaluate, encoder, work, store)
    means = table.groupby("sampler")[["identity", "prompt_right", "detected"]].mean()
    metrics = {f"{sampler}.{name}": float(value) for sampler, line in means.iterrows() for name, value in line.items()}
    write_json(work / "metrics.json", metrics)
    log(metrics, settings.steps)
