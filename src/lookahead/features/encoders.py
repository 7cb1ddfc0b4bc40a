"""The frozen networks that turn a batch of pictures, or all prompts, into features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from insightface.utils.face_align import norm_crop
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lookahead.config import Checkpoints
from lookahead.dataset.shards import Pixels
from lookahead.world import Pipeline, device, encode_latents, open_faces, open_image_encoder, open_pipeline


@dataclass(frozen=True)
class Encoders:
    """The frozen networks that turn pictures and prompts into features."""

    pipe: Pipeline
    image_encoder: Any
    processor: Any
    recogniser: Any


def open_encoders(checkpoints: Checkpoints) -> Encoders:
    """Open the base model, the image encoder and the recogniser of the lookahead loss.

    Raises:
        InputError: a checkpoint is missing or truncated.
    """
    faces = open_faces(checkpoints.faces.loss, checkpoints.faces.detection_size)
    image_encoder, processor = open_image_encoder(checkpoints)
    return Encoders(open_pipeline(checkpoints), image_encoder, processor, faces.models["recognition"])


@torch.no_grad()
def encode_images(encoders: Encoders, pictures: Sequence[Pixels]) -> Tensor:
    """Penultimate hidden states (B, S, D) of the image encoder, which IP-Adapter-plus reads."""
    seen = encoders.processor(images=[Image.fromarray(p) for p in pictures], return_tensors="pt").pixel_values
    return _hidden(encoders.image_encoder, seen)


@torch.no_grad()
def encode_no_image(encoders: Encoders) -> Tensor:
    """Hidden states (1, S, D) of a picture of zeros: diffusers' unconditional image."""
    size = encoders.image_encoder.config.image_size
    return _hidden(encoders.image_encoder, torch.zeros(1, 3, size, size))


def _hidden(encoder: Any, seen: Tensor) -> Tensor:
    states: Tensor = encoder(seen.to(encoder.device, encoder.dtype), output_hidden_states=True).hidden_states[-2]
    return states


def embed_faces(recogniser: Any, pictures: Sequence[Pixels], landmarks: NDArray[np.float32]) -> Tensor:
    """Unit face embeddings (B, E) of pictures aligned by landmarks (B, 5, 2) in pixels, as insightface does it."""
    size = recogniser.input_size[0]
    pairs = zip(pictures, landmarks, strict=True)
    crops = [norm_crop(np.ascontiguousarray(p[:, :, ::-1]), points, image_size=size) for p, points in pairs]
    return torch.nn.functional.normalize(torch.from_numpy(recogniser.get_feat(crops)), dim=-1)


@torch.no_grad()
def encode_prompts(pipe: Pipeline, prompts: list[str]) -> dict[str, Tensor]:
    """Tokens (P, L, C) and pooled embeddings (P, E) of prompts and, as diffusers makes it, of no prompt (1, ...)."""
    tokens, no_tokens, pooled, no_pooled = pipe.encode_prompt(
        prompts, device=device(), num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    names = ("prompt_embeds", "pooled", "empty_prompt_embeds", "empty_pooled")
    return dict(zip(names, (tokens, pooled, no_tokens[:1], no_pooled[:1]), strict=True))


@torch.no_grad()
def encode_pictures(
    encoders: Encoders, pictures: Sequence[Pixels], landmarks: NDArray[np.float32]
) -> dict[str, Tensor]:
    """What every kept picture needs, by name, of a batch (B, ...) with these landmarks (B, 5, 2) in pixels."""
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1  # (B, 3, H, W)
    return {
        "latents": encode_latents(encoders.pipe.vae, pixels),
        "embeddings": embed_faces(encoders.recogniser, pictures, landmarks),
        "landmarks": torch.from_numpy(landmarks),
    }


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


def encode_shard(encoders: Encoders, part: Part, batch: int, bar: Any) -> dict[str, Tensor]:
    """What training needs of a shard's pictures, by name, on the CPU; `bar` is told of each batch."""
    batches = []
    for start in range(0, len(part.pictures), batch):
        rows = slice(start, start + batch)
        batches.append(encode_pictures(encoders, part.pictures[rows], part.landmarks[rows]))
        bar.update(len(part.pictures[rows]))
    found = {name: torch.cat([each[name] for each in batches]) for name in batches[0]}
    found["image_features"] = _encode_photos(encoders, part, batch)
    return {name: tensor.cpu().contiguous() for name, tensor in found.items()}
