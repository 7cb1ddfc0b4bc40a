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


@dataclass(frozen=True)
class Dataset:
    """A dataset's folder, the rows of its table that are kept, and whether it is the one of own photos."""

    folder: Path
    kept: pa.Table
    own: bool

    @property
    def parts(self) -> dict[str, Path]:
        """Its shards, by the names of their features, which sort as the rows of the features' table do."""
        return {f"{'own-' * self.own}{shard.stem}.safetensors": shard for shard in list_shards(self.folder)}


def _read_dataset(folder: Path, own: bool) -> Dataset:
    path = folder / "table.parquet"
    try:
        table = pq.read_table(path, columns=_COLUMNS).select(_COLUMNS)
    except (pa.ArrowException, OSError, KeyError) as error:
        stage = "photos" if own else "generate"
        raise InputError(f"{path} cannot be read ({error!s:.200}): run the stage `{stage}` again") from None
    return Dataset(folder, table.filter(table["kept"]), own)


def _read_datasets(generated: Path, photos: Path | None) -> list[Dataset]:
    found = [_read_dataset(generated, own=False)]
    if photos is not None and (photos / "table.parquet").exists():  # nobody's photos, no table
        found.append(_read_dataset(photos, own=True))
    return found


def _encode_part(encoders: Encoders, batch: int, shard: Path, landmarks: dict[int, Any], path: Path, bar: Any) -> bool:
    """Whether there was anything to do."""
    found = {index: pixels for index, pixels in read_pictures(shard) if index in landmarks}
    if not found or _is_done(path):
        bar.update(len(found))
        return False
    points = np.asarray([landmarks[index] for index in found], dtype=np.float32)  # (N, 5, 2)
    save_tensors(path, _encode_shard(encoders, list(found.values()), points, batch, bar), {})
    return True


def _encode_images(encoders: Encoders, batch: int, datasets: Sequence[Dataset], work: Path, log: Log) -> None:
    keep_only(work / IMAGES, [name for dataset in datasets for name in dataset.parts])
    total, number = sum(len(dataset.kept) for dataset in datasets), 0
    with quiet_alignment(), tqdm(total=total, desc="encoding pictures", unit="image") as bar:
        for dataset in datasets:
            kept = (dataset.kept[name].to_pylist() for name in ("index", "landmarks"))
            landmarks = dict(zip(*kept, strict=True))
            for name, shard in dataset.parts.items():
                if _encode_part(encoders, batch, shard, landmarks, work / IMAGES / name, bar):
                    log({"encoded": float(bar.n)}, number)
                number += 1


def _table(datasets: Sequence[Dataset], prompts: list[str]) -> pa.Table:
    """A row a kept picture; nobody is in both datasets, so the own photos' people are numbered after the others."""
    kept = pa.concat_tables([dataset.kept for dataset in datasets])
    own = np.repeat([dataset.own for dataset in datasets], [len(dataset.kept) for dataset in datasets])
    identity = kept["identity"].to_numpy()
    identity = np.where(own, identity + identity[~own].max(initial=-1) + 1, identity)
    numbers = {prompt: number for number, prompt in enumerate(prompts)}
    columns = {name: kept[name] for name in ("index", "style", "scene", "photo")}
    prompt = pa.array([numbers[text] for text in kept["neutral_prompt"].to_pylist()], pa.int64())
    rows = pa.array(range(len(kept)), pa.int64())
    return pa.table({"row": rows, "own": own, "identity": identity, **columns, "prompt": prompt})


def encode(
    checkpoints: Checkpoints, settings: Features, generated: Path, photos: Path | None, work: Path, log: Log
) -> None:
    """Encode the kept pictures of a dataset and of own photos: `images/`, `prompts.safetensors`, `table.parquet`.

    `generated` and `photos` are outputs of the stages of these names; one of nobody's photos counts as none. A run that
    was cut off continues at its missing parts.

    Raises:
        InputError: a dataset or a checkpoint is missing or damaged, or the disk is full.
    """
    datasets = _read_datasets(generated, photos)
    prompts = sorted({text for dataset in datasets for text in dataset.kept["neutral_prompt"].to_pylist()})
    encoders = open_encoders(checkpoints)
    keep_only(work, [])
    features = encode_prompts(encoders.pipe, prompts) | {"null_image_features": encode_no_image(encoders)}
    save_tensors(work / PROMPTS, {name: t.cpu().contiguous() for name, t in features.items()}, {})
    _encode_images(encoders, settings.batch, datasets, work, log)
    write_parquet(work / TABLE, _table(datasets, prompts))
