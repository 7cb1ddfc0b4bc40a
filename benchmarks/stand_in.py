"""Features and pictures that nobody drew: random contents in the stages' own files, as many and as large as wanted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import torch
from torch import Tensor

from lookahead.artifacts import save_tensors, write_parquet
from lookahead.config import Checkpoints, Generate, World, read_params
from lookahead.dataset.faces import Face
from lookahead.dataset.prompts import Prompts, read_prompts
from lookahead.dataset.shards import Picture, shard_path, write_shard
from lookahead.features.store import IMAGES, PROMPTS, TABLE

PNG = 6560  # bytes of a picture: the mean of the miniature's portraits, as `encode_png` writes them


@dataclass(frozen=True)
class Sizes:
    """Shapes of a picture's features and of a prompt's, and the number format of all but faces and landmarks."""

    latents: tuple[int, ...]
    image_features: tuple[int, ...]
    face: int
    tokens: tuple[int, ...]
    pooled: int
    precision: str


NARROW = Sizes((4, 2, 2), (2, 8), 8, (2, 8), 8, "float32")
SDXL = Sizes((4, 128, 128), (257, 1280), 512, (77, 2048), 1280, "bfloat16")


def sizes_of(checkpoints: Checkpoints) -> Sizes:
    """What the networks of a world whose sources are folders make of a picture and a prompt."""
    base, recogniser = Path(checkpoints.base), Path(checkpoints.faces.loss) / "rec.onnx"
    folders = (base / "vae", Path(checkpoints.image_encoder.source), base / "text_encoder", base / "text_encoder_2")
    vae, image, one, two = (json.loads((folder / "config.json").read_bytes()) for folder in folders)
    side = checkpoints.resolution // 2 ** (len(vae["block_out_channels"]) - 1)
    return Sizes(
        latents=(vae["latent_channels"], side, side),
        image_features=((image["image_size"] // image["patch_size"]) ** 2 + 1, image["hidden_size"]),
        face=onnx.load(recogniser).graph.output[0].type.tensor_type.shape.dim[-1].dim_value,
        tokens=(one["max_position_embeddings"], one["hidden_size"] + two["hidden_size"]),
        pooled=two["projection_dim"],
        precision=checkpoints.precision,
    )


class Stand:
    """Writes random features and pictures of people who have as many photos and styles as the settings say."""

    def __init__(self, settings: Generate, sizes: Sizes) -> None:
        """Draw from a generator of its own."""
        self.settings, self.sizes = settings, sizes
        self.prompts: Prompts = read_prompts(settings.prompts)
        self.draw = torch.Generator().manual_seed(0)

    def some(self, *shape: int, precise: bool = False) -> Tensor:
        """Random numbers in the features' format, or in float32."""
        drawn = torch.randn(*shape, generator=self.draw)
        return drawn if precise else drawn.to(getattr(torch, self.sizes.precision))

    def table(self, rows: int) -> pa.Table:
        """A row a picture: each person's photos, then the stylised pictures."""
        row, prompts = np.arange(rows), self.prompts
        person, turn = np.divmod(row, self.settings.photos + self.settings.stylised)
        photo = turn < self.settings.photos
        style, scene = turn % len(prompts.stylised), row % len(prompts.scenes)
        columns = {"row": row, "own": np.zeros(rows, bool), "identity": person, "index": row, "photo": photo}
        columns["style"] = np.where(photo, prompts.plain, np.array(prompts.stylised)[style])
        columns["scene"] = np.array(list(prompts.scenes))[scene]
        columns["prompt"] = style * len(prompts.scenes) + scene
        return pa.table(columns)

    def said(self) -> dict[str, Tensor]:
        """Features of every prompt, of none, and of no picture."""
        count, sizes = len(self.prompts.stylised) * len(self.prompts.scenes), self.sizes
        return {
            "prompt_embeds": self.some(count, *sizes.tokens),
            "pooled": self.some(count, sizes.pooled),
            "empty_prompt_embeds": self.some(1, *sizes.tokens),
            "empty_pooled": self.some(1, sizes.pooled),
            "null_image_features": self.some(1, *sizes.image_features),
        }

    def seen(self, photo: Tensor) -> dict[str, Tensor]:
        """Features of the pictures of one shard, whether each is a photo (N,)."""
        return {
            "latents": self.some(len(photo), *self.sizes.latents),
            "image_features": self.some(int(photo.sum()), *self.sizes.image_features),
            "embeddings": self.some(len(photo), self.sizes.face, precise=True),
            "landmarks": self.some(len(photo), 5, 2, precise=True),
        }

    def features(self, rows: int, folder: Path) -> None:
        """Write what the stage `features` would."""
        table = self.table(rows)
        for number, photo in enumerate(torch.tensor(table["photo"].to_numpy()).split(self.settings.shard_size)):
            save_tensors(folder / IMAGES / f"{number:05d}.safetensors", self.seen(photo), {})
        save_tensors(folder / PROMPTS, self.said(), {})
        write_parquet(folder / TABLE, table)

    def pictures(self, rows: int, folder: Path) -> None:
        """Write the shards that the stage `generate` would, of bytes that are no pictures."""
        draw = np.random.default_rng(0)
        for number, indices in enumerate(torch.arange(rows).split(self.settings.shard_size)):
            pictures = [Picture(i, i, "a name", "a style", "a scene", "words", "words", i) for i in indices.tolist()]
            numbers = draw.normal(size=(len(indices), 512)).astype(np.float32)
            faces = [Face(each[:4], each[:10].reshape(5, 2), each, 0.0) for each in numbers]
            write_shard(shard_path(folder, number), pictures, [draw.bytes(PNG) for _ in pictures], faces)


def world_of(kind: str) -> World:
    """Whose people, shards and micro-batches: SDXL's, or for rows of its own those of the world of params.yaml."""
    params = read_params()
    return params.active if kind == "world" else params.worlds["sdxl"]


def write(home: Path, rows: int, kind: str) -> None:
    """A folder of features ("narrow", "sdxl", or of the "world"), and of the world's own rows one of pictures."""
    world = world_of(kind)
    sizes = {"narrow": NARROW, "sdxl": SDXL}.get(kind) or sizes_of(world.checkpoints)
    stand = Stand(world.generate, sizes)
    stand.features(rows, home / "features")
    if kind == "world":
        stand.pictures(rows, home / "pictures")
