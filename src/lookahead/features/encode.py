"""Encodes the dataset once: everything that training needs and that never changes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from lookahead.artifacts import Log, save_tensors, write_parquet
from lookahead.config import Checkpoints, Features
from lookahead.dataset.shards import keep_only, list_shards, read_pictures, read_shard
from lookahead.errors import InputError
from lookahead.features.encoders import (
    Encoders,
    Part,
    encode_no_image,
    encode_prompts,
    encode_shard,
    open_encoders,
)
from lookahead.features.store import IMAGES, PROMPTS, TABLE
from lookahead.world import quiet_alignment
from lookahead.world.hub import check_weights
from lookahead.world.processes import await_files, broadcast, launched

_COLUMNS = ["index", "identity", "style", "scene", "neutral_prompt", "landmarks", "photo", "kept"]
Faces = dict[int, tuple[NDArray[np.float32], bool]]  # landmarks (5, 2), and whether it is a photo, by picture


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


@dataclass(frozen=True)
class Task:
    """A shard in which pictures are kept, those of them by index, and where their features belong."""

    shard: Path
    known: Faces
    path: Path


def _tasks(datasets: Sequence[Dataset], work: Path) -> Iterator[Task]:
    for dataset in datasets:
        faces = dataset.faces()
        for name, shard in dataset.parts.items():
            indices = read_shard(shard, ["index"])["index"].to_pylist()
            known = {index: faces[index] for index in indices if index in faces}
            if known:
                yield Task(shard, known, work / IMAGES / name)


def _encode_task(encoders: Encoders, batch: int, task: Task, bar: Any) -> None:
    landmarks, photo = zip(*task.known.values(), strict=True)
    pictures = [pixels for index, pixels in read_pictures(task.shard) if index in task.known]
    save_tensors(task.path, encode_shard(encoders, Part(pictures, np.stack(landmarks), photo), batch, bar), {})


def _encode_images(encoders: Encoders, batch: int, tasks: Sequence[Task], log: Log) -> None:
    """Encode the missing shards that are this process's."""
    missing = [number for number, task in enumerate(tasks) if launched().mine(number) and not _is_done(task.path)]
    total = sum(len(tasks[number].known) for number in missing)
    with quiet_alignment(), tqdm(total=total, desc="encoding pictures", unit="image") as bar:
        for number in missing:
            _encode_task(encoders, batch, tasks[number], bar)
            log({"encoded": float(bar.n)}, number)


def assist() -> None:
    """Encode this process's shards of the dataset that the first process encodes, as it tells.

    Raises:
        InputError: as `encode`.
    """
    told = json.loads(broadcast("", launched()))
    generated, photos, work = (told[name] and Path(told[name]) for name in ("generated", "photos", "work"))
    tasks = list(_tasks(_read_datasets(generated, photos), work))
    encoders = open_encoders(Checkpoints.model_validate(told["checkpoints"]))
    _encode_images(encoders, told["batch"], tasks, lambda _metrics, _step: None)


def _tell(checkpoints: Checkpoints, batch: int, **places: Path | None) -> None:
    named = {name: place and str(place.resolve()) for name, place in places.items()}
    broadcast(json.dumps({"checkpoints": checkpoints.model_dump(), "batch": batch} | named), launched())


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
    was cut off continues at its missing parts. Of several processes each encodes the shards whose number is its own
    modulo theirs, and the first one waits for the others.

    Raises:
        InputError: a dataset or a checkpoint is missing or damaged, or the disk is full.
    """
    datasets = _read_datasets(generated, photos)
    prompts = sorted({text for dataset in datasets for text in dataset.kept["neutral_prompt"].to_pylist()})
    keep_only(work, [])
    keep_only(work / IMAGES, [name for dataset in datasets for name in dataset.parts])
    _tell(checkpoints, settings.batch, generated=generated, photos=photos, work=work)
    encoders, tasks = open_encoders(checkpoints), list(_tasks(datasets, work))
    features = encode_prompts(encoders.pipe, prompts) | {"null_image_features": encode_no_image(encoders)}
    save_tensors(work / PROMPTS, {name: t.cpu().contiguous() for name, t in features.items()}, {})
    _encode_images(encoders, settings.batch, tasks, log)
    await_files(task.path for task in tasks)
    write_parquet(work / TABLE, _table(datasets, prompts))
