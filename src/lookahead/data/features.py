"""Encodes the dataset once: everything that training needs and that never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import Log, save_tensors, write_parquet
from lookahead.config import Checkpoints, Features
from lookahead.data.encoders import (
    Encoders,
    encode_images,
    encode_no_image,
    encode_pictures,
    encode_prompts,
    open_encoders,
)
from lookahead.data.shards import Pixels, keep_only, list_shards, read_pictures, read_shard
from lookahead.data.store import IMAGES, PROMPTS, TABLE
from lookahead.errors import InputError
from lookahead.world import quiet_alignment
from lookahead.world.sources import check_weights

_COLUMNS = ["index", "identity", "style", "scene", "neutral_prompt", "landmarks", "photo", "kept"]
Faces = dict[int, tuple[NDArray[np.float32], bool]]  # landmarks (5, 2), and whether it is a photo, by picture


@dataclass(frozen=True)
class Part:
    """The kept pictures of one shard, N of them: their landmarks (N, 5, 2), and which are photos (N,)."""

    pictures: list[Pixels]
    landmarks: NDArray[np.float32]
    photo: Sequence[bool]


def _encode_photos(encoders: Encoders, part: Part, batch: int) -> Tensor:
    """Only photos are ever references: of stylised pictures nobody asks what the image encoder sees."""
    photos = [picture for picture, photo in zip(part.pictures, part.photo, strict=True) if photo]
    seen = [encode_images(encoders, photos[start : start + batch]) for start in range(0, len(photos), batch)]
    return torch.cat([encode_no_image(encoders)[:0], *seen])  # a part without photos has the shape, too


def _encode_shard(encoders: Encoders, part: Part, batch: int, bar: Any) -> dict[str, Tensor]:
    batches = []
    for start in range(0, len(part.pictures), batch):
        rows = slice(start, start + batch)
        batches.append(encode_pictures(encoders, part.pictures[rows], part.landmarks[rows]))
        bar.update(len(part.pictures[rows]))
    found = {name: torch.cat([each[name] for each in batches]) for name in batches[0]}
    found["image_features"] = _encode_photos(encoders, part, batch)
    return {name: tensor.cpu().contiguous() for name, tensor in found.items()}


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

    def faces(self) -> Faces:
        """By index, the landmarks (5, 2) of each kept picture and whether it is a photo.

        Views of one matrix: as Python numbers, landmarks take five times the memory.
        """
        points = pc.list_flatten(pc.list_flatten(self.kept["landmarks"])).to_numpy().astype(np.float32)
        known = zip(points.reshape(-1, 5, 2), self.kept["photo"].to_pylist(), strict=True)
        return dict(zip(self.kept["index"].to_pylist(), known, strict=True))


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


def _encode_part(encoders: Encoders, batch: int, shard: Path, faces: Faces, path: Path, bar: Any) -> bool:
    """Whether there was anything to do."""
    known = [faces[index] for index in read_shard(shard, ["index"])["index"].to_pylist() if index in faces]
    if not known or _is_done(path):
        bar.update(len(known))
        return False
    landmarks, photo = zip(*known, strict=True)
    pictures = [pixels for index, pixels in read_pictures(shard) if index in faces]
    save_tensors(path, _encode_shard(encoders, Part(pictures, np.stack(landmarks), photo), batch, bar), {})
    return True


def _encode_images(encoders: Encoders, batch: int, datasets: Sequence[Dataset], work: Path, log: Log) -> None:
    keep_only(work / IMAGES, [name for dataset in datasets for name in dataset.parts])
    total, number = sum(len(dataset.kept) for dataset in datasets), 0
    with quiet_alignment(), tqdm(total=total, desc="encoding pictures", unit="image") as bar:
        for dataset in datasets:
            faces = dataset.faces()
            for name, shard in dataset.parts.items():
                if _encode_part(encoders, batch, shard, faces, work / IMAGES / name, bar):
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
