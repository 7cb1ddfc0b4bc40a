"""Encodes the dataset once: everything that training needs and that never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from insightface.utils.face_align import norm_crop
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import Log, save_tensors, write_parquet
from lookahead.config import Checkpoints, Features
from lookahead.data.shards import Pixels, keep_only, list_shards, read_pictures
from lookahead.data.store import IMAGES, PROMPTS, TABLE, FeatureStore, open_features
from lookahead.errors import InputError
from lookahead.world import (
    Pipeline,
    device,
    encode_latents,
    open_faces,
    open_image_encoder,
    open_pipeline,
    quiet_alignment,
)
from lookahead.world.sources import check_weights

__all__ = ["Encoders", "FeatureStore", "encode", "open_encoders", "open_features"]
_COLUMNS = ["index", "identity", "style", "scene", "neutral_prompt", "landmarks", "photo", "kept"]


@dataclass(frozen=True)
class Encoders:
    """The frozen networks that turn pictures and prompts into features."""

    pipe: Pipeline
    image_encoder: Any
    processor: Any
    recogniser: Any


def open_encoders(checkpoints: Checkpoints) -> Encoders:
    """Open the base model, the image encoder and the recogniser of the lookahead loss.

    Raises:
        InputError: a checkpoint is missing or truncated.
    """
    faces = open_faces(checkpoints.faces.loss, checkpoints.faces.detection_size)
    image_encoder, processor = open_image_encoder(checkpoints)
    return Encoders(open_pipeline(checkpoints), image_encoder, processor, faces.models["recognition"])


@torch.no_grad()
def encode_images(encoders: Encoders, pictures: Sequence[Pixels]) -> Tensor:
    """Penultimate hidden states (B, S, D) of the image encoder, which IP-Adapter-plus reads."""
    seen = encoders.processor(images=[Image.fromarray(p) for p in pictures], return_tensors="pt").pixel_values
    return _hidden(encoders.image_encoder, seen)


@torch.no_grad()
def encode_no_image(encoders: Encoders) -> Tensor:
    """Hidden states (1, S, D) of a picture of zeros: diffusers' unconditional image."""
    size = encoders.image_encoder.config.image_size
    return _hidden(encoders.image_encoder, torch.zeros(1, 3, size, size))


def _hidden(encoder: Any, seen: Tensor) -> Tensor:
    states: Tensor = encoder(seen.to(encoder.device, encoder.dtype), output_hidden_states=True).hidden_states[-2]
    return states


def embed_faces(recogniser: Any, pictures: Sequence[Pixels], landmarks: NDArray[np.float32]) -> Tensor:
    """Unit face embeddings (B, E) of pictures aligned by landmarks (B, 5, 2) in pixels, as insightface does it."""
    size = recogniser.input_size[0]
    pairs = zip(pictures, landmarks, strict=True)
    crops = [norm_crop(np.ascontiguousarray(p[:, :, ::-1]), points, image_size=size) for p, points in pairs]
    return torch.nn.functional.normalize(torch.from_numpy(recogniser.get_feat(crops)), dim=-1)


@torch.no_grad()
def encode_prompts(pipe: Pipeline, prompts: list[str]) -> dict[str, Tensor]:
    """Tokens (P, L, C) and pooled embeddings (P, E) of prompts and, as diffusers makes it, of no prompt (1, ...)."""
    tokens, no_tokens, pooled, no_pooled = pipe.encode_prompt(
        prompts, device=device(), num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    names = ("prompt_embeds", "pooled", "empty_prompt_embeds", "empty_pooled")
    return dict(zip(names, (tokens, pooled, no_tokens[:1], no_pooled[:1]), strict=True))


def _encode_batch(encoders: Encoders, pictures: Sequence[Pixels], landmarks: NDArray[np.float32]) -> dict[str, Tensor]:
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, H, W)
    return {
        "latents": encode_latents(encoders.pipe.vae, pixels),
        "image_features": encode_images(encoders, pictures),
        "embeddings": embed_faces(encoders.recogniser, pictures, landmarks),
        "landmarks": torch.from_numpy(landmarks),
    }


def _encode_shard(
    encoders: Encoders, pictures: list[Pixels], landmarks: NDArray[np.float32], batch: int, bar: Any
) -> dict[str, Tensor]:
    parts = []
    for start in range(0, len(pictures), batch):
        rows = slice(start, start + batch)
        parts.append(_encode_batch(encoders, pictures[rows], landmarks[rows]))
        bar.update(len(pictures[rows]))
    return {name: torch.cat([part[name] for part in parts]).cpu().contiguous() for name in parts[0]}


def _is_done(path: Path) -> bool:
    if path.is_file():
        check_weights(path)
    return path.is_file()


def _encode_images(encoders: Encoders, batch: int, kept: pa.Table, generate: Path, work: Path, log: Log) -> None:
    keep_only(work / IMAGES, [f"{shard.stem}.safetensors" for shard in list_shards(generate)])
    landmarks = dict(zip(kept["index"].to_pylist(), kept["landmarks"].to_pylist(), strict=True))
    with quiet_alignment(), tqdm(total=len(landmarks), desc="encoding pictures", unit="image") as bar:
        for number, shard in enumerate(list_shards(generate)):
            path = work / IMAGES / f"{shard.stem}.safetensors"
            found = {index: pixels for index, pixels in read_pictures(shard) if index in landmarks}
            if not found or _is_done(path):
                bar.update(len(found))
                continue
            points = np.asarray([landmarks[index] for index in found], dtype=np.float32)  # (N, 5, 2)
            tensors = _encode_shard(encoders, list(found.values()), points, batch, bar)
            save_tensors(path, tensors, {})
            log({"encoded": float(bar.n)}, number)


def _read_kept(generate: Path) -> pa.Table:
    path = generate / "table.parquet"
    try:
        table = pq.read_table(path, columns=_COLUMNS).select(_COLUMNS)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error!s:.200}): run the stage `generate` again") from None
    return table.filter(table["kept"])


def _table(kept: pa.Table, prompts: list[str]) -> pa.Table:
    numbers = {prompt: number for number, prompt in enumerate(prompts)}
    columns = {name: kept[name] for name in ("index", "identity", "style", "scene", "photo")}
    prompt = pa.array([numbers[text] for text in kept["neutral_prompt"].to_pylist()], pa.int64())
    return pa.table({"row": pa.array(range(len(kept)), pa.int64()), **columns, "prompt": prompt})


def encode(checkpoints: Checkpoints, settings: Features, generate: Path, work: Path, log: Log) -> None:
    """Encode the kept pictures of `generate` into `work`: `images/`, `prompts.safetensors` and `table.parquet`.

    A run that was cut off continues at its missing parts.

    Raises:
        InputError: the dataset or a checkpoint is missing or damaged, or the disk is full.
    """
    kept = _read_kept(generate)
    prompts = sorted(set(kept["neutral_prompt"].to_pylist()))
    encoders = open_encoders(checkpoints)
    keep_only(work, [])
    features = encode_prompts(encoders.pipe, prompts) | {"null_image_features": encode_no_image(encoders)}
    save_tensors(work / PROMPTS, {name: t.cpu().contiguous() for name, t in features.items()}, {})
    _encode_images(encoders, settings.batch, kept, generate, work, log)
    write_parquet(work / TABLE, _table(kept, prompts))
