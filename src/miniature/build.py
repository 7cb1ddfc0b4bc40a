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
from lookahead.config.fields import Count, Section
from lookahead.config.files import read_yaml
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

    def text(self) -> None:
        """Tokenizers and text encoders."""
        build_text_encoders(self._part("text"), self._base, self.work / "text")

    def vae(self) -> None:
        """The base model's autoencoder."""
        pool = self._pool(self.settings.vae_shards)
        build_vae(pool, self._part("vae"), self._base / "vae", self.work / "vae")

    def preview_vae(self) -> None:
        """The autoencoder of previews."""
        pool, out = self._pool(self.settings.vae_shards), self.root / "preview_vae"
        build_preview_vae(
            pool, self._open(AutoencoderKL, "base/vae"), self._part("preview_vae"), out, self.work / "preview_vae"
        )

    def base(self) -> None:
        """The U-Net, and the index of the whole pipeline."""
        pool = self._pool()
        build_base(pool, self._latents(pool), self._part("base"), self._base, self.work / "base")

    def image_encoder(self) -> None:
        """The vision encoder."""
        teacher, part = self._part("image_teacher"), self._part("image_encoder")
        build_image_encoder(self._pool(), teacher, part, self.root / "image_encoder", self.work / "image_encoder")

    def adapter(self) -> None:
        """The image adapter."""
        pool, latents = self._pool(ADAPTER_SHARDS), self._latents(self._pool())
        encoder = self._open(CLIPVisionModelWithProjection, "image_encoder")
        processor = CLIPImageProcessor.from_pretrained(self.root / "image_encoder")
        features = self._encoded(
            "features", self.root / "image_encoder", pool, lambda x: image_features(encoder, normalise(x, processor))
        )
        null = image_features(encoder, torch.zeros(1, 3, SIZE, SIZE))
        unet, part = self._open(UNet2DConditionModel, "base/unet"), self._part("adapter")
        out, work = self.root / "adapter", self.work / "adapter"
        build_adapter(pool, latents[: len(pool)], features, null, unet, self._base, part, out, work)

    def lcm_lora(self) -> None:
        """The LCM-LoRA."""
        pool, count = self._pool(), self.settings.trajectories
        latents, captions = self._latents(pool)[:count], pool.captions()[:count]
        part, out, work = self._part("lcm_lora"), self.root / "lcm_lora", self.work / "lcm_lora"
        build_fast_child(self._open(UNet2DConditionModel, "base/unet"), latents, captions, self._base, part, out, work)

    def clip(self) -> None:
        """The text-image scorer."""
        build_scorer(self._pool(SCORER_SHARDS), self._part("clip"), self.root / "clip", self.work / "clip")

    def detector(self) -> None:
        """The detector of all face packs."""
        faces, outs = open_wide(self.work / "faces_pool", WIDE_SEED), [self._pack(name) / "det.onnx" for name in KINDS]
        build_detector(faces, self._part("detector"), outs, self.work / "detector")

    def recogniser(self, name: str) -> None:
        """The recogniser of one face pack."""
        people, part = open_people(self.work / "faces_pool", PEOPLE_SEED), self._part(f"faces_{name}")
        build_recogniser(name, people, part, self._pack(name) / "rec.onnx", self.work / f"faces_{name}")

    def portraits(self) -> None:
        """Photos of people whom no part is trained on."""
        build_portraits(self.settings.people, self.root / "portraits")

    def card(self) -> None:
        """The figures of all parts."""
        write_card(self.checkpoints, self.root)

    @property
    def _base(self) -> Path:
        return self.root / "base"

    def _part(self, name: str) -> Part:
        return self.settings.parts[name]

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
        return self._encoded("latents", self._base / "vae", pool, lambda x: vae.encode(x).latent_dist.mean)

    @torch.no_grad()
    def _encoded(self, name: str, encoder: Path, pool: Pool, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """An encoder's outputs for the pool from a cache: a retrained encoder or another pool has another file."""
        path = self.work / f"{name}_{digest(digest_paths([encoder]), len(pool))[:12]}.safetensors"
        if not path.exists():
            chunks = [encode(to_pixels(pictures)).half().cpu() for pictures in pool.pixels.split(100)]
            save_tensors(path, {name: torch.cat(chunks)}, {})
        return load_tensors(path)[0][name]


PARTS: dict[str, Callable[[Builder], None]] = {
    "detector": Builder.detector,
    **{f"faces_{name}": partial(Builder.recogniser, name=name) for name in KINDS},
    "clip": Builder.clip,
    "text": Builder.text,
    "vae": Builder.vae,
    "preview_vae": Builder.preview_vae,
    "image_encoder": Builder.image_encoder,
    "base": Builder.base,
    "adapter": Builder.adapter,
    "lcm_lora": Builder.lcm_lora,
    "portraits": Builder.portraits,
    "card": Builder.card,
}  # in building order


def build_part(name: str, builder: Builder) -> None:
    """Build one part of the miniature.

    Raises:
        InputError: there is no part of this name.
    """
    if name not in PARTS:
        raise InputError(f"the miniature has no part {name!r}: choose one of {', '.join(PARTS)}")
    PARTS[name](builder)
