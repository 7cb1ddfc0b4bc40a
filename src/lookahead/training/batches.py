"""Reading a micro-batch from the features: which pairs, and their tensors on the device."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from lookahead.data.pairs import draw_pairs
from lookahead.data.store import FeatureStore
from lookahead.training.step import Batch
from lookahead.world import device


def _float(tensor: Tensor) -> Tensor:
    return tensor.to(device(), torch.float32)


def load_pairs(store: FeatureStore, targets: Tensor, references: Tensor) -> Batch:
    """The features of targets and references, rows (B,) each, in float32 on the device."""
    prompt_embeds, pooled = store.prompt_embeds(targets)
    return Batch(
        latents=_float(store.latents(targets)),
        landmarks=_float(store.landmarks(targets)),
        prompt_embeds=_float(prompt_embeds),
        pooled=_float(pooled),
        image_features=_float(store.image_features(references)),
        embeddings=_float(store.embeddings(references)),
    )


def draw_batch(store: FeatureStore, count: int, generator: Generator) -> Batch:
    """`count` pairs: the target any picture, the reference another photo of its person (official release).

    Raises:
        InputError: nobody has two photos.
    """
    return load_pairs(store, *draw_pairs(store.table, count, generator))


def no_image(store: FeatureStore) -> Tensor:
    """What the image adapter reads where there is no reference, (1, S, D): features of a picture of zeros."""
    return _float(store.prompts.null_image_features)


def no_prompt(store: FeatureStore, count: int) -> tuple[Tensor, Tensor]:
    """Tokens (count, L, C) and pooled embedding (count, P) of no prompt."""
    tokens, pooled = _float(store.prompts.empty_prompt_embeds), _float(store.prompts.empty_pooled)
    return tokens.expand(count, -1, -1), pooled.expand(count, -1)


def without_some(features: Tensor, null: Tensor, kept: Tensor) -> Tensor:
    """Image features (B, S, D), those of no image where `kept` (B, 1, 1) is false."""
    return torch.where(kept.to(features.device), features, null)
