"""Builds the miniature part by part, each from its predecessors' files; a killed build resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lookahead.artifacts import Log, digest, digest_paths, load_tensors, save_tensors
from lookahead.config import Checkpoints, Miniature, Params
from lookahead.errors import InputError
from miniature.adapter import build_adapter
from miniature.autoencoders import build_preview_vae, build_vae, pixels_of
from miniature.base import build_base, encode_pool
from miniature.card import write_card
from miniature.detector import build_detector
from miniature.faces_pool import Faces, people_pool, wide_pool
from miniature.fast_child import build_fast_child
from miniature.image_encoder import build_image_encoder, image_features, null_features
from miniature.pool import Pool, build_pool, open_pool
from miniature.portraits import build_portraits
from miniature.recognisers import KINDS, build_recogniser
from miniature.scorer import build_scorer
from miniature.text import build_text_encoders, build_tokenizer

POOL_SEED, PEOPLE_SEED, WIDE_SEED = 11, 21, 22
ADAPTER_SHARDS = 20  # of the pool
SCORER_SHARDS = 12  # of the pool; styles and scenes need no more


@dataclass(frozen=True)
class Workshop:
    """Where a part's inputs, outputs and resume state lie, and the numbers of all parts."""

    root: Path
    work: Path
    settings: Miniature
    checkpoints: Checkpoints
    log: Log

    @property
    def base(self) -> Path:
        """The base pipeline's folder."""
        return self.root / "base"

    def pool(self, shards: int | None = None) -> Pool:
        """The pool of rendered portraits, drawn first where it is missing; the first `shards` of it."""
        count = shards or self.settings.pool_shards
        build_pool(self.work / "pool", count, POOL_SEED)
        return open_pool(self.work / "pool", count)

    def people(self) -> Faces:
        """The recognisers' pictures, drawn first where they are missing."""
        return people_pool(self.work / "faces_pool", PEOPLE_SEED)

    def pack(self, name: str) -> Path:
        """The folder of one insightface pack."""
        return self.root / "faces" / "models" / name

    def vae(self) -> AutoencoderKL:
        """The trained autoencoder, frozen."""
        return AutoencoderKL.from_pretrained(self.base / "vae", torch_dtype=torch.float32).eval().requires_grad_(False)

    def unet(self) -> UNet2DConditionModel:
        """The trained U-Net, frozen."""
        return (
            UNet2DConditionModel.from_pretrained(self.base / "unet", torch_dtype=torch.float32)
            .eval()
            .requires_grad_(False)
        )

    def latents(self, pool: Pool) -> Tensor:
        """The pool's latents, encoded once by each autoencoder."""
        return encode_pool(pool, self.vae(), self._cache("latents", self.base / "vae", pool))

    def image_encoder(self) -> CLIPVisionModelWithProjection:
        """The trained vision encoder, frozen."""
        source = self.root / "image_encoder"
        encoder = CLIPVisionModelWithProjection.from_pretrained(source, dtype=torch.float32)
        return encoder.eval().requires_grad_(False)

    def features(self, pool: Pool, encoder: CLIPVisionModelWithProjection) -> Tensor:
        """The pool's image features (N, S, D) float16, computed once by each encoder."""
        path = self._cache("features", self.root / "image_encoder", pool)
        if not path.exists():
            processor = CLIPImageProcessor.from_pretrained(self.root / "image_encoder")
            rows = torch.arange(len(pool)).split(200)
            encoded = torch.cat([image_features(encoder, processor, pixels_of(pool, r)).half() for r in rows])
            save_tensors(path, {"features": encoded}, {})
        return load_tensors(path)[0]["features"]

    def _cache(self, name: str, encoder: Path, pool: Pool) -> Path:
        """Where an encoder's output for a pool is kept: a retrained encoder or another pool has another file."""
        return self.work / f"{name}_{digest(digest_paths([encoder]), len(pool))[:12]}.safetensors"


def _text(shop: Workshop) -> None:
    tokenizer = build_tokenizer(shop.base / "tokenizer")
    tokenizer.save_pretrained(shop.base / "tokenizer_2")  # learnt a second time, equal words would get other numbers
    build_text_encoders(tokenizer, shop.settings.parts["text"], shop.base, shop.work / "text", shop.log)


def _vae(shop: Workshop) -> None:
    pool = shop.pool(shop.settings.vae_shards)
    build_vae(pool, shop.settings.parts["vae"], shop.base / "vae", shop.work / "vae", shop.log)


def _preview_vae(shop: Workshop) -> None:
    pool = shop.pool(shop.settings.vae_shards)
    part = shop.settings.parts["preview_vae"]
    build_preview_vae(pool, shop.vae(), part, shop.root / "preview_vae", shop.work / "preview_vae", shop.log)


def _base(shop: Workshop) -> None:
    pool = shop.pool()
    build_base(pool, shop.latents(pool), shop.settings.parts["base"], shop.base, shop.work / "base", shop.log)


def _image_encoder(shop: Workshop) -> None:
    teacher, part = (shop.settings.parts[name] for name in ("image_teacher", "image_encoder"))
    out, work = shop.root / "image_encoder", shop.work / "image_encoder"
    build_image_encoder(shop.pool(), teacher, part, out, work, shop.log)


def _adapter(shop: Workshop) -> None:
    whole, pool, part = shop.pool(), shop.pool(ADAPTER_SHARDS), shop.settings.parts["adapter"]
    out, work = shop.root / "adapter", shop.work / "adapter"
    encoder = shop.image_encoder()
    features, null = shop.features(pool, encoder), null_features(encoder)
    latents = shop.latents(whole)[: len(pool)]
    build_adapter(pool, latents, features, null, shop.unet(), shop.base, part, out, work, shop.log)


def _lcm_lora(shop: Workshop) -> None:
    pool, settings = shop.pool(), shop.settings
    out, work, part = shop.root / "lcm_lora", shop.work / "lcm_lora", settings.parts["lcm_lora"]
    build_fast_child(shop.unet(), pool, shop.latents(pool), settings.trajectories, shop.base, part, out, work, shop.log)


def _clip(shop: Workshop) -> None:
    pool = shop.pool(SCORER_SHARDS)
    build_scorer(pool, shop.settings.parts["clip"], shop.root / "clip", shop.work / "clip", shop.log)


def _detector(shop: Workshop) -> None:
    faces, part = wide_pool(shop.work / "faces_pool", WIDE_SEED), shop.settings.parts["detector"]
    build_detector(faces, part, [shop.pack(name) / "det.onnx" for name in KINDS], shop.work / "detector", shop.log)


def _recogniser(name: str) -> Callable[[Workshop], None]:
    def build(shop: Workshop) -> None:
        part, work = shop.settings.parts[f"faces_{name}"], shop.work / f"faces_{name}"
        build_recogniser(name, shop.people(), part, shop.pack(name) / "rec.onnx", work, shop.log)

    return build


def _card(shop: Workshop) -> None:
    write_card(shop.checkpoints, shop.root)


def _portraits(shop: Workshop) -> None:
    build_portraits(shop.settings, shop.root / "portraits")


PARTS: dict[str, Callable[[Workshop], None]] = {
    "detector": _detector,
    **{f"faces_{name}": _recogniser(name) for name in KINDS},
    "clip": _clip,
    "text": _text,
    "vae": _vae,
    "preview_vae": _preview_vae,
    "image_encoder": _image_encoder,
    "base": _base,
    "adapter": _adapter,
    "lcm_lora": _lcm_lora,
    "portraits": _portraits,
    "card": _card,
}  # in building order


def build_part(name: str, root: Path, work: Path, params: Params, log: Log) -> None:
    """Build one part of the miniature into `root`.

    Raises:
        InputError: there is no part of this name.
    """
    if name not in PARTS:
        raise InputError(f"the miniature has no part {name!r}: choose one of {', '.join(PARTS)}")
    PARTS[name](Workshop(root, work, params.miniature, params.worlds["miniature"].checkpoints, log))
