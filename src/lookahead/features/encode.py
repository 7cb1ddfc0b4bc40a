"""Encodes the dataset once: everything that training needs and that never changes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from insightface.utils.face_align import norm_crop
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import Log, keep_only, save_tensors, write_parquet
from lookahead.config import Checkpoints, Features
from lookahead.dataset.shards import decode_png, list_shards, read_pictures, read_shard, read_table
from lookahead.features.store import IMAGES, PROMPTS, TABLE
from lookahead.portraits import Pixels
from lookahead.world import (
    encode_latents,
    encode_prompts,
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
        self._pipe = open_pipeline(checkpoints)
        self._image_encoder, self._processor = open_image_encoder(checkpoints)
        pack = open_faces(checkpoints.faces.loss, checkpoints.faces.detection_size)
        self._recogniser = pack.models["recognition"]

    @torch.no_grad()
    def prompts(self, prompts: Sequence[str]) -> dict[str, Tensor]:
        """Tokens (P, L, C) and pooled embeddings (P, E) of prompts and, as in diffusers, of no prompt (1, ...)."""
        tokens, no_tokens, pooled, no_pooled = encode_prompts(self._pipe, prompts)
        empty = {"empty_prompt_embeds": no_tokens[:1], "empty_pooled": no_pooled[:1]}
        return {"prompt_embeds": tokens, "pooled": pooled, **empty}

    @torch.no_grad()
    def images(self, pictures: Sequence[Pixels] | None) -> Tensor:
        """Penultimate hidden states (B, S, D) of the image encoder; None is diffusers' unconditional image, zeros."""
        encoder = self._image_encoder
        if pictures is None:
            pixels = torch.zeros(1, 3, encoder.config.image_size, encoder.config.image_size)
        else:
            images = [Image.fromarray(picture) for picture in pictures]
            pixels = self._processor(images=images, return_tensors="pt").pixel_values
        states: Tensor = encoder(pixels.to(encoder.device, encoder.dtype), output_hidden_states=True).hidden_states[-2]
        return states

    @torch.no_grad()
    def pictures(self, pictures: Sequence[Pixels], landmarks: NDArray[np.float32]) -> dict[str, Tensor]:
        """What every picture of a batch (B, ...) needs, by name; landmarks (B, 5, 2) in pixels."""
        pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, H, W)
        size, pairs = self._recogniser.input_size[0], zip(pictures, landmarks, strict=True)
        crops = [norm_crop(np.ascontiguousarray(p[:, :, ::-1]), points, image_size=size) for p, points in pairs]
        embeddings = torch.nn.functional.normalize(torch.from_numpy(self._recogniser.get_feat(crops)), dim=-1)
        latents = encode_latents(self._pipe.vae, pixels)
        return {"latents": latents, "embeddings": embeddings, "landmarks": torch.from_numpy(landmarks)}


@dataclass(frozen=True)
class _Shard:
    """A shard, its kept rows of the dataset's table, and the file of their features."""

    path: Path
    kept: pa.Table
    features: Path


def _shards(folder: Path, stage: str, images: Path, prefix: str, left_out: Collection[int] = ()) -> Iterator[_Shard]:
    """The shards with pictures to encode; the names of their features sort as the rows of the features' table."""
    table, start = read_table(folder, _COLUMNS, stage), 0
    encoded = pc.and_not(table["kept"], pc.is_in(table["identity"], pa.array(sorted(left_out), pa.int64())))
    table = table.set_column(_COLUMNS.index("kept"), "kept", encoded)
    for path in list_shards(folder):
        rows = table.slice(start, count := len(read_shard(path, ["index"])))
        start += count
        if len(kept := rows.filter(rows["kept"])):
            yield _Shard(path, kept, images / f"{prefix}{path.stem}.safetensors")


def _encode_shard(encoders: Encoders, shard: _Shard, batch_size: int) -> Iterator[int]:
    """Encode a shard's kept pictures, and as references its photos alone, in batches, whose sizes it yields."""
    kept, points = set(shard.kept["index"].to_pylist()), pc.list_flatten(pc.list_flatten(shard.kept["landmarks"]))
    landmarks = points.to_numpy().astype(np.float32).reshape(-1, 5, 2)
    pictures = (decode_png(png, shard.path) for index, png in read_pictures(shard.path) if index in kept)
    photo, photos = shard.kept["photo"].to_pylist(), list[Pixels]()
    encoded: dict[str, list[Tensor]] = {"image_features": [encoders.images(None)[:0].cpu()]}  # there may be no photo
    for start in range(0, len(photo), batch_size):
        batch = list(islice(pictures, batch_size))
        for name, tensor in encoders.pictures(batch, landmarks[start : start + batch_size]).items():
            encoded.setdefault(name, []).append(tensor.cpu())
        photos += [pixels for pixels, chosen in zip(batch, photo[start:], strict=False) if chosen]
        while len(photos) >= batch_size or (photos and start + batch_size >= len(photo)):
            encoded["image_features"].append(encoders.images(photos[:batch_size]).cpu())
            photos = photos[batch_size:]
        yield len(batch)
    save_tensors(shard.features, {name: torch.cat(parts).contiguous() for name, parts in encoded.items()}, {})


def _write_prompts(encoders: Encoders, prompts: Sequence[str], batch_size: int, path: Path) -> None:
    parts = [encoders.prompts(prompts[start : start + batch_size]) for start in range(0, len(prompts), batch_size)]
    features = parts[0] | {name: torch.cat([part[name] for part in parts]) for name in ("prompt_embeds", "pooled")}
    features["null_image_features"] = encoders.images(None)
    save_tensors(path, {name: tensor.cpu().contiguous() for name, tensor in features.items()}, {})


def _write_table(kept: pa.Table, own: NDArray[np.bool_], prompts: Sequence[str], path: Path) -> None:
    """A row a kept picture; nobody is in both datasets, so the own photos' people are numbered after the others."""
    identity = kept["identity"].to_numpy()
    identity = np.where(own, identity + identity[~own].max(initial=-1) + 1, identity)
    columns = {"row": np.arange(len(kept)), "own": own, "identity": identity}
    columns |= {name: kept[name] for name in ("index", "style", "scene", "photo")}
    columns["prompt"] = pc.index_in(kept["neutral_prompt"], pa.array(prompts)).cast(pa.int64())
    write_parquet(path, pa.table(columns))


def encode(
    checkpoints: Checkpoints,
    settings: Features,
    generated: Path,
    photos: Path | None,
    work: Path,
    log: Log,
    left_out: Collection[int] = (),
) -> None:
    """Encode the kept pictures of a dataset and of own photos: `images/`, `prompts.safetensors`, `table.parquet`.

    `generated` and `photos` are outputs of the stages of these names; one of nobody's photos counts as none. `left_out`
    are people of the first. Every process calls this and encodes its share of the shards; a run that was cut off
    continues at its missing parts.
    """
    shards = list(_shards(generated, "generate", work / IMAGES, "", left_out))
    invented = len(shards)
    if photos is not None and (photos / "table.parquet").exists():
        shards += _shards(photos, "photos", work / IMAGES, "own-")
    if is_main_process():
        keep_only(work, [])
        keep_only(work / IMAGES, [shard.features.name for shard in shards])
    wait_for_everyone()
    encoders = Encoders(checkpoints)
    missing = [number for number in own_share(range(len(shards))) if not shards[number].features.is_file()]
    total = sum(len(shards[number].kept) for number in missing)
    with quiet_alignment(), tqdm(total=total, desc="features", unit="image") as bar:
        for number in missing:
            for count in _encode_shard(encoders, shards[number], settings.batch_size):
                bar.update(count)
            log({"encoded": float(bar.n)}, number)
    if is_main_process():
        kept = pa.concat_tables([shard.kept for shard in shards])
        prompts = sorted(kept["neutral_prompt"].unique().to_pylist())
        own = np.repeat(np.arange(len(shards)) >= invented, [len(shard.kept) for shard in shards])
        _write_prompts(encoders, prompts, settings.batch_size, work / PROMPTS)
        _write_table(kept, own, prompts, work / TABLE)
    wait_for_everyone()
