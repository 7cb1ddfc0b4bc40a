"""Shards: parquet files of pictures with their rows, which `datasets.load_dataset` opens and shows."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from lookahead.artifacts import digest, write_parquet
from lookahead.dataset.consistency import Face
from lookahead.dataset.plan import Picture
from lookahead.errors import InputError

Pixels = NDArray[np.uint8]  # (H, W, 3), RGB
_POINTS = pa.list_(pa.float32())
_FIELDS = [
    ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
    ("index", pa.int64()),
    ("identity", pa.int64()),
    ("name", pa.string()),
    ("style", pa.string()),
    ("scene", pa.string()),
    ("prompt", pa.string()),
    ("neutral_prompt", pa.string()),
    ("seed", pa.int64()),
    ("box", _POINTS),
    ("landmarks", pa.list_(_POINTS)),
    ("embedding", _POINTS),
    ("second_face", pa.float32()),
]
_PICTURES = {"info": {"features": {"image": {"_type": "Image"}}}}  # tells `datasets` to decode the column


def encode_png(pixels: Pixels) -> bytes:
    """A picture as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_png(data: bytes) -> Pixels:
    """The pixels of a PNG."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` of a dataset lies."""
    return folder / "shards" / f"{number:05d}.parquet"


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Delete every file in `folder` but those named, such as what a killed run had half written."""
    for path in (path for path in folder.glob("*") if path.is_file()):
        if path.name not in names:
            path.unlink()


def plan_digest(pictures: Sequence[Picture]) -> str:
    """What a shard was drawn from, kept in its schema."""
    return digest([asdict(picture) for picture in pictures])


def _row(picture: Picture, png: bytes, face: Face | None) -> dict[str, object]:
    image = {"bytes": png, "path": f"{picture.index:08d}.png"}
    found = {name: None if face is None else getattr(face, name).tolist() for name in ("box", "landmarks", "embedding")}
    return {"image": image, **asdict(picture), **found, "second_face": 0.0 if face is None else face.second_face}


def write_shard(path: Path, pictures: Sequence[Picture], pngs: Sequence[bytes], faces: Sequence[Face | None]) -> None:
    """Write one shard: pictures, what they show and the face found in each; the same bytes for the same pictures.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    metadata = {"huggingface": json.dumps(_PICTURES), "plan": plan_digest(pictures)}
    rows = [_row(*parts) for parts in zip(pictures, pngs, faces, strict=True)]
    write_parquet(path, pa.Table.from_pylist(rows, schema=pa.schema(_FIELDS, metadata=metadata)))


def _damaged(path: Path, error: Exception) -> InputError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return InputError(f"{path} cannot be read ({reason}): delete it and run again, only this shard is drawn anew")


def shard_is_done(path: Path, pictures: Sequence[Picture]) -> bool:
    """Whether a shard exists and was drawn from these pictures.

    Raises:
        InputError: it exists and is damaged.
    """
    if not path.exists():
        return False
    try:
        metadata = pq.read_table(path).schema.metadata or {}  # reads all of it: damage anywhere shows now
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from None
    return bool(metadata.get(b"plan") == plan_digest(pictures).encode())


def list_shards(folder: Path) -> list[Path]:
    """The shards of a dataset in order.

    Raises:
        InputError: there is none.
    """
    found = sorted((folder / "shards").glob("*.parquet"))
    if not found:
        raise InputError(f"{folder} holds no shards: run the stage `generate` first")
    return found


def read_shard(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a shard.

    Raises:
        InputError: it is damaged, or lacks a column.
    """
    try:
        return pq.read_table(path, columns=list(columns)).select(list(columns)).replace_schema_metadata(None)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise _damaged(path, error) from None


def read_rows(folder: Path) -> pa.Table:
    """All rows of a dataset without its pictures.

    Raises:
        InputError: a shard is damaged, or there is none.
    """
    columns = [name for name, _ in _FIELDS if name != "image"]
    return pa.concat_tables([read_shard(path, columns) for path in list_shards(folder)])


def read_pictures(path: Path) -> Iterator[tuple[int, Pixels]]:
    """The index and the pixels of each picture of a shard.

    Raises:
        InputError: the shard or a picture in it is damaged.
    """
    table = read_shard(path, ["index", "image"])
    for index, image in zip(table["index"].to_pylist(), table["image"].to_pylist(), strict=True):
        try:
            yield index, decode_png(image["bytes"])
        except OSError as error:
            raise _damaged(path, error) from None
