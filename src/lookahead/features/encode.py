"""Encodes the dataset once: everything that training needs and that never changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from insightface.utils.face_align import norm_crop
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import Log, keep_only, save_tensors, write_parquet
from lookahead.config import Checkpoints, Features
from lookahead.dataset.shards import decode_png, list_shards, read_pictures, read_shard
from lookahead.errors import InputError
from lookahead.features.store import IMAGES, PROMPTS, TABLE
from lookahead.portraits import Pixels
from lookahead.world import (
    Pipeline,
    device,
    encode_latents,
    open_faces,
    open_image_encoder,
    open_pipeline,
    quiet_alignment,
)
from lookahead.world.distributed import is_main_process, own_share, wait_for_everyone

_COLUMNS = ["index", "identity", "style", "scene", "neutral_prompt", "landmarks", "photo", "kept"]


class Encoders:
    """The frozen networks that turn pictures and prompts into features."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        """Open the base model, the image encoder and the recogniser of the lookahead loss."""
        self.pipe: Pipeline = open_pipeline(checkpoints)
        self._image_encoder, self._processor = open_image_encoder(checkpoints)
        self._recogniser: Any = open_faces(checkpoints.faces.loss, checkpoints.faces.detection_size).models[
            "recognition"
        ]

    @torch.no_grad()
    def prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Tokens (P, L, C) and pooled embeddings (P, E) of prompts and, as in diffusers, of no prompt (1, ...)."""
        tokens, no_tokens, pooled, no_pooled = self.pipe.encode_prompt(
            list(prompts), device=device(), num_images_per_prompt=1, do_classifier_free_guidance=True
        )
        empty = {"empty_prompt_embeds": no_tokens[:1], "empty_pooled": no_pooled[:1]}
        return {"prompt_embeds": tokens, "pooled": pooled, **empty}

    @torch.no_grad()
    def images(self, pictures: Sequence[Pixels]) -> Tensor:
        """Penultimate hidden states (B, S, D) of the image encoder, which IP-Adapter-plus reads."""
        if not pictures:
            return self.no_image()[:0]
        images = [Image.fromarray(picture) for picture in pictures]
        return self._hidden(self._processor(images=images, return_tensors="pt").pixel_values)

    @torch.no_grad()
    def no_image(self) -> Tensor:
        """Hidden states (1, S, D) of a picture of zeros: diffusers' unconditional image."""
        size = self._image_encoder.config.image_size
        return self._hidden(torch.zeros(1, 3, size, size))

    def _hidden(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(self._image_encoder.device, self._image_encoder.dtype)
        states: Tensor = self._image_encoder(pixels, output_hidden_states=True).hidden_states[-2]
        return states

    def faces(self, pictures: Sequence[Pixels], landmarks: NDArray[np.float32]) -> Tensor:
        """Unit face embeddings (B, E) of pictures aligned by landmarks (B, 5, 2) in pixels, as insightface does it."""
        size, pairs = self._recogniser.input_size[0], zip(pictures, landmarks, strict=True)
        crops = [norm_crop(np.ascontiguousarray(p[:, :, ::-1]), points, image_size=size) for p, points in pairs]
        return torch.nn.functional.normalize(torch.from_numpy(self._recogniser.get_feat(crops)), dim=-1)

    @torch.no_grad()
    def pictures(self, pictures: Sequence[Pixels], landmarks: NDArray[np.float32]) -> dict[str, Tensor]:
        """What every picture of a batch (B, ...) needs, by name; landmarks (B, 5, 2) in pixels."""
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, H, W)
        faces, latents = self.faces(pictures, landmarks), encode_latents(self.pipe.vae, pixels)
        return {"latents": latents, "embeddings": faces, "landmarks": torch.from_numpy(landmarks)}


def _read_table(folder: Path) -> pa.Table:
    path = folder / "table.parquet"
    try:
        return pq.read_table(path, columns=_COLUMNS).select(_COLUMNS)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error!s:.200}): run the stage `{folder.name}` again") from None


@dataclass(frozen=True)
class _Shard:
    """A shard, its rows of the dataset's table, and where their features belong."""

    path: Path
    rows: pa.Table
    features: Path


def _shards(folder: Path, table: pa.Table, images: Path, prefix: str) -> Iterator[_Shard]:
    """The shards in which pictures are kept; the names of their features sort as the rows of the features' table."""
    start = 0
    for path in list_shards(folder):
        rows = table.slice(start, count := len(read_shard(path, ["index"])))
        start += count
        if pc.any(rows["kept"]).as_py():
            yield _Shard(path, rows, images / f"{prefix}{path.stem}.safetensors")


def _is_whole(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt"):
            return True
    except (SafetensorError, OSError):
        return False


def _encode_shard(encoders: Encoders, shard: _Shard, batch_size: int, bar: Any) -> None:
    """Encode the kept pictures of a shard in batches; of photos alone, which are the only references, the image."""
    rows = shard.rows.filter(shard.rows["kept"])
    landmarks = pc.list_flatten(pc.list_flatten(rows["landmarks"])).to_numpy().astype(np.float32).reshape(-1, 5, 2)
    kept = set(rows["index"].to_pylist())
    pictures = (decode_png(png, shard.path) for index, png in read_pictures(shard.path) if index in kept)
    photo, photos = rows["photo"].to_pylist(), list[Pixels]()
    encoded: dict[str, list[Tensor]] = {"image_features": []}
    for start in range(0, len(photo), batch_size):
        batch = list(islice(pictures, batch_size))
        part = slice(start, start + len(batch))
        for name, tensor in encoders.pictures(batch, landmarks[part]).items():
            encoded.setdefault(name, []).append(tensor.cpu())
        photos += [pixels for pixels, is_photo in zip(batch, photo[part], strict=True) if is_photo]
        last = part.stop == len(photo)
        while len(photos) >= batch_size or last:
            encoded["image_features"].append(encoders.images(photos[:batch_size]).cpu())
            photos = photos[batch_size:]
            last = last and bool(photos)
        bar.update(len(batch))
    save_tensors(shard.features, {name: torch.cat(parts).contiguous() for name, parts in encoded.items()}, {})


def _encode_prompts(encoders: Encoders, prompts: Sequence[str], batch_size: int, path: Path) -> None:
    parts = [encoders.prompts(prompts[start : start + batch_size]) for start in range(0, len(prompts), batch_size)]
    features = {name: torch.cat([part[name] for part in parts]) for name in ("prompt_embeds", "pooled")}
    features |= {name: parts[0][name] for name in ("empty_prompt_embeds", "empty_pooled")}
    features["null_image_features"] = encoders.no_image()
    save_tensors(path, {name: tensor.cpu().contiguous() for name, tensor in features.items()}, {})


def encode(
    checkpoints: Checkpoints, settings: Features, generated: Path, photos: Path | None, work: Path, log: Log
) -> None:
    """Encode the kept pictures of a dataset and of own photos: `images/`, `prompts.safetensors`, `table.parquet`.

    `generated` and `photos` are outputs of the stages of these names; one of nobody's photos counts as none. Every
    process calls this and encodes its share of the shards; a run that was cut off continues at its missing parts.
    """
    folders = [generated, *([photos] if photos is not None and (photos / "table.parquet").exists() else [])]
    tables = [_read_table(folder) for folder in folders]
    parts = zip(folders, tables, ("", "own-"), strict=False)
    shards = [shard for folder, table, prefix in parts for shard in _shards(folder, table, work / IMAGES, prefix)]
    if is_main_process():
        keep_only(work, [])
        keep_only(work / IMAGES, [shard.features.name for shard in shards])
    wait_for_everyone()
    encoders = Encoders(checkpoints)
    missing = [shard for shard in own_share(shards) if not _is_whole(shard.features)]
    total = sum(pc.sum(shard.rows["kept"]).as_py() for shard in missing)
    with quiet_alignment(), tqdm(total=total, desc="encoding pictures", unit="image") as bar:
        for shard in missing:
            _encode_shard(encoders, shard, settings.batch_size, bar)
            log({"encoded": float(bar.n)}, shards.index(shard))
    if is_main_process():
        kept = pa.concat_tables([table.filter(table["kept"]) for table in tables])
        prompts = sorted(kept["neutral_prompt"].unique().to_pylist())
        _encode_prompts(encoders, prompts, settings.batch_size, work / PROMPTS)
        own = np.repeat([False, True][: len(tables)], [pc.sum(table["kept"]).as_py() for table in tables])
        identity = kept["identity"].to_numpy()  # nobody is in both datasets: own people are numbered after the others
        identity = np.where(own, identity + identity[~own].max(initial=-1) + 1, identity)
        columns = {"row": np.arange(len(kept)), "own": own, "identity": identity}
        columns |= {name: kept[name] for name in ("index", "style", "scene", "photo")}
        columns["prompt"] = pc.index_in(kept["neutral_prompt"], pa.array(prompts)).cast(pa.int64())
        write_parquet(work / TABLE, pa.table(columns))
    wait_for_everyone()
