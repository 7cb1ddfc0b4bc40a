"""Builds the miniature part by part, each from its predecessors' files; a killed build resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lookahead.artifacts import digest, digest_paths, load_tensors, save_tensors
from lookahead.config import Checkpoints
from lookahead.config.fields import Count, Section, read_yaml
from lookahead.errors import InputError
from lookahead.world import frozen
from miniature.adapter import build_adapter
from miniature.autoencoders import build_preview_vae, build_vae
from miniature.base import build_base
from miniature.card import write_card
from miniature.data import Pool, build_portraits, open_people, open_pool, open_wide, to_pixels
from miniature.encoders import build_image_encoder, build_text_encoders, image_features, normalise
from miniature.faces import KINDS, build_detector, build_recogniser
from miniature.fast_child import build_fast_child
from miniature.renderer import SIZE
from miniature.scorer import build_scorer
from miniature.training import Part

POOL_SEED, PEOPLE_SEED, WIDE_SEED = 11, 21, 22
ADAPTER_SHARDS = 20  # of the pool
SCORER_SHARDS = 12  # of the pool; styles and scenes need no more


class Miniature(Section):
    """`models/miniature/params.yaml`: how the parts are trained, and how many people each split of portraits has."""

    pool_shards: Count
    vae_shards: Count
    trajectories: Count
    people: dict[str, Count]
    parts: dict[str, Part]


def read_miniature(path: Path = Path("models/miniature/params.yaml")) -> Miniature:
    """Read and check the parameters of the miniature."""
    return read_yaml(path, Miniature, "the miniature's parameters", "models/miniature/params.yaml")


@dataclass(frozen=True)
class Builder:
    """The parts by name, built into `root`; data and resume state lie in `work`."""

    root: Path
    work: Path
    settings: Miniature
    checkpoints: Checkpoints  # of the finished world, which the card measures

    def build_text(self) -> None:
        build_text_encoders(self._part("text"), self._base, self.work / "text")

    def build_vae(self) -> None:
        pool = self._pool(self.settings.vae_shards)
        build_vae(pool, self._part("vae"), self._base / "vae", self.work / "vae")

    def build_preview_vae(self) -> None:
        pool, vae = self._pool(self.settings.vae_shards), self._open(AutoencoderKL, "base/vae")
        build_preview_vae(pool, vae, *self._training("preview_vae"))

    def build_base(self) -> None:
        pool = self._pool()
        build_base(pool, self._latents(pool), self._part("base"), self._base, self.work / "base")

    def build_image_encoder(self) -> None:
        build_image_encoder(self._pool(), self._part("image_teacher"), *self._training("image_encoder"))

    def build_adapter(self) -> None:
        encoder: Any = self._open(CLIPVisionModelWithProjection, "image_encoder")
        processor = CLIPImageProcessor.from_pretrained(self.root / "image_encoder")

        def encode(pixels: Tensor) -> Tensor:
            return image_features(encoder, normalise(pixels, processor))

        pool, latents = self._pool(ADAPTER_SHARDS), self._latents(self._pool())
        features = self._encoded("features", "image_encoder", pool, encode)
        null, unet = (
            image_features(encoder, torch.zeros(1, 3, SIZE, SIZE)),
            self._open(UNet2DConditionModel, "base/unet"),
        )
        build_adapter(pool, latents[: len(pool)], features, null, unet, self._base, *self._training("adapter"))

    def build_lcm_lora(self) -> None:
        pool, count = self._pool(), self.settings.trajectories
        latents, captions = self._latents(pool)[:count], pool.captions()[:count]
        unet = self._open(UNet2DConditionModel, "base/unet")
        build_fast_child(unet, latents, captions, self._base, *self._training("lcm_lora"))

    def build_clip(self) -> None:
        build_scorer(self._pool(SCORER_SHARDS), *self._training("clip"))

    def build_detector(self) -> None:
        faces, outs = open_wide(self.work / "faces_pool", WIDE_SEED), [self._pack(name) / "det.onnx" for name in KINDS]
        build_detector(faces, self._part("detector"), outs, self.work / "detector")

    def build_recogniser(self, name: str) -> None:
        people, part = open_people(self.work / "faces_pool", PEOPLE_SEED), self._part(f"faces_{name}")
        build_recogniser(name, people, part, self._pack(name) / "rec.onnx", self.work / f"faces_{name}")

    def build_portraits(self) -> None:
        build_portraits(self.settings.people, self.root / "portraits")

    def build_card(self) -> None:
        write_card(self.checkpoints, self.root)

    @property
    def _base(self) -> Path:
        return self.root / "base"

    def _part(self, name: str) -> Part:
        return self.settings.parts[name]

    def _training(self, name: str) -> tuple[Part, Path, Path]:
        """A part's settings, output folder and folder of resume state."""
        return self._part(name), self.root / name, self.work / name

    def _pack(self, name: str) -> Path:
        return self.root / "faces" / "models" / name

    def _pool(self, shards: int | None = None) -> Pool:
        return open_pool(self.work / "pool", shards or self.settings.pool_shards, POOL_SEED)

    def _open(self, kind: Any, folder: str) -> Any:
        """A part that was built before, frozen."""
        return frozen(kind.from_pretrained(self.root / folder, dtype=torch.float32))

    def _latents(self, pool: Pool) -> Tensor:
        """Latents (N, 8, 16, 16) float16 of the pool."""
        vae = self._open(AutoencoderKL, "base/vae")
        return self._encoded("latents", "base/vae", pool, lambda pixels: vae.encode(pixels).latent_dist.mean)

    @torch.no_grad()
    def _encoded(self, name: str, encoder: str, pool: Pool, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """An encoder's outputs for the pool from a cache: a retrained encoder or another pool has another file."""
        path = self.work / f"{name}_{digest(digest_paths([self.root / encoder]), len(pool))[:12]}.safetensors"
        if not path.exists():
            chunks = [encode(to_pixels(pictures)).half().cpu() for pictures in pool.pixels.split(100)]
            save_tensors(path, {name: torch.cat(chunks)}, {})
        return load_tensors(path)[0][name]


PARTS: dict[str, Callable[[Builder], None]] = {
    "detector": Builder.build_detector,
    **{f"faces_{name}": partial(Builder.build_recogniser, name=name) for name in KINDS},
    "clip": Builder.build_clip,
    "text": Builder.build_text,
    "vae": Builder.build_vae,
    "preview_vae": Builder.build_preview_vae,
    "image_encoder": Builder.build_image_encoder,
    "base": Builder.build_base,
    "adapter": Builder.build_adapter,
    "lcm_lora": Builder.build_lcm_lora,
    "portraits": Builder.build_portraits,
    "card": Builder.build_card,
}  # in building order


def build_part(name: str, builder: Builder) -> None:
    """Build one part of the miniature."""
    if name not in PARTS:
        raise InputError(f"the miniature has no part {name!r}: choose one of {', '.join(PARTS)}")
    PARTS[name](builder)
