"""Shards: parquet files of pictures with their rows, which `datasets.load_dataset` opens and shows."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL import Image

from lookahead.artifacts import digest, write_parquet
from lookahead.dataset.faces import KEPT, Array, Face
from lookahead.errors import InputError
from lookahead.portraits import Pixels

TABLE = "table.parquet"
_BATCH = 32  # pictures that are read at a time: those of a shard together would take gigabytes
_POINTS = pa.list_(pa.float32())
_FIELDS = {
    "image": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    **dict.fromkeys(("index", "identity"), pa.int64()),
    **dict.fromkeys(("name", "style", "scene", "prompt", "neutral_prompt"), pa.string()),
    "seed": pa.int64(),
    "box": _POINTS,
    "landmarks": pa.list_(_POINTS),
    "embedding": _POINTS,
    "second_face": pa.float32(),
}
_PICTURES = {"info": {"features": {"image": {"_type": "Image"}}}}  # tells `datasets` to decode the column


@dataclass(frozen=True)
class Picture:
    """One picture of a dataset; `prompt` names the person, `neutral_prompt` is the same without the name."""

    index: int
    identity: int
    name: str
    style: str
    scene: str
    prompt: str
    neutral_prompt: str
    seed: int


def encode_png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def shard_path(folder: Path, number: int) -> Path:
    return folder / "shards" / f"{number:05d}.parquet"


def list_shards(folder: Path) -> list[Path]:
    """The shards of a dataset in order."""
    found = sorted((folder / "shards").glob("*.parquet"))
    if not found:
        raise InputError(f"{folder} holds no shards: run the stage `generate` first")
    return found


def _plan_digest(pictures: Sequence[Picture]) -> str:
    return digest([asdict(picture) for picture in pictures])


def write_shard(path: Path, pictures: Sequence[Picture], pngs: Sequence[bytes], faces: Sequence[Face | None]) -> None:
    """Write one shard: pictures, their rows and the face found in each; the same bytes for the same pictures."""
    rows = []
    for picture, png, face in zip(pictures, pngs, faces, strict=True):
        image = {"bytes": png, "path": f"{picture.index:08d}.png"}
        found = {name: face and getattr(face, name).tolist() for name in ("box", "landmarks", "embedding")}
        rows.append({"image": image, **asdict(picture), **found, "second_face": face.second_face if face else 0.0})
    metadata = {"huggingface": json.dumps(_PICTURES), "plan": _plan_digest(pictures)}
    write_parquet(path, pa.Table.from_pylist(rows, schema=pa.schema(_FIELDS, metadata=metadata)))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} cannot be read ({reason}): delete it and run again, only this shard is drawn anew"
        ) from None


def _batches(path: Path, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
    with _reading(path), pq.ParquetFile(path, buffer_size=1 << 20) as file:
        yield from file.iter_batches(_BATCH, columns=columns)


def shard_is_done(path: Path, pictures: Sequence[Picture]) -> bool:
    """Whether a shard exists and was drawn from these pictures; a damaged one is an `InputError`."""
    if not path.exists():
        return False
    for _ in _batches(path):  # damage anywhere shows now
        pass
    return bool((pq.read_schema(path).metadata or {}).get(b"plan") == _plan_digest(pictures).encode())


def read_shard(path: Path, columns: list[str]) -> pa.Table:
    with _reading(path):
        return pq.read_table(path, columns=columns).select(columns).replace_schema_metadata(None)


def read_pictures(path: Path) -> Iterator[tuple[int, bytes]]:
    """The index and the PNG of each picture of a shard."""
    for batch in _batches(path, ["index", "image"]):
        yield from zip(batch["index"].to_pylist(), pc.struct_field(batch["image"], "bytes").to_pylist(), strict=True)


def decode_png(png: bytes, path: Path) -> Pixels:
    """The pixels of a picture of the shard `path`."""
    with _reading(path):
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def read_rows(folder: Path, plain: str) -> tuple[pa.Table, pd.DataFrame, Array]:
    """All rows of a dataset without pictures, and what the face check needs of them: columns and faces (N, E)."""
    shards, names = list_shards(folder), [name for name in _FIELDS if name not in ("image", "embedding")]
    rows = pa.concat_tables([read_shard(path, names) for path in shards])
    columns = rows.select(["identity", "style", "second_face"]).to_pandas(categories=["style"])
    columns = columns.assign(photo=columns["style"] == plain, second_face=columns["second_face"].astype(float))
    found, embedding, start = np.zeros(len(rows), bool), np.zeros((len(rows), 0), np.float32), 0
    for path in shards:  # one after the other into one matrix, the largest part by far
        column = read_shard(path, ["embedding"])["embedding"]
        part = slice(start, start := start + len(column))
        found[part] = column.is_valid()
        if found[part].any():
            values = pc.list_flatten(column).to_numpy().reshape(int(found[part].sum()), -1)
            embedding = embedding if embedding.size else np.zeros((len(rows), values.shape[1]), np.float32)
            embedding[part][found[part]] = values
    return rows, columns.assign(found=found), embedding


def read_table(folder: Path, columns: list[str], stage: str) -> pa.Table:
    """Columns of `table.parquet`, which a stage has written."""
    path = folder / TABLE
    try:
        return pq.read_table(path, columns=columns).select(columns)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error!s:.200}): run the stage `{stage}` again") from None


def write_table(folder: Path, rows: pa.Table, columns: pd.DataFrame) -> None:
    """Write `table.parquet`: the rows with what the face check decided on each, and why."""
    similarity = pa.array(columns["similarity"], pa.float32(), from_pandas=True)
    added = {"photo": columns["photo"], "similarity": similarity, "kept": columns["reason"] == KEPT}
    for name, values in (added | {"reason": pa.array(columns["reason"]).cast(pa.string())}).items():
        rows = rows.append_column(name, pa.array(values))
    write_parquet(folder / TABLE, rows)
