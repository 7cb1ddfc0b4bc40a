"""Reading a micro-batch from the features: which pairs, and their tensors on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from lookahead.config import Train
from lookahead.features.store import FeatureStore
from lookahead.sampling.conditions import Condition, Prompt, Reference
from lookahead.training.draws import draw_kept
from lookahead.world import to_device


@dataclass(frozen=True)
class Batch:
    """Pairs of a target and a reference, B of them: everything that the losses need, encoded in advance."""

    rows: Tensor  # (B,) of the targets in the features
    latents: Tensor  # (B, C, h, w), target
    landmarks: Tensor  # (B, 5, 2) pixels, target
    condition: Condition  # the target's prompt, without the name, and the reference's image features
    reference: Reference  # what the KV-encoder sees
    embeddings: Tensor  # (B, E) unit: whom the preview should show


def _float(tensor: Tensor) -> Tensor:
    return to_device(tensor).float()


def _prompt(store: FeatureStore, rows: Tensor) -> Prompt:
    return Prompt(*store.prompt_embeds(rows)).map(_float)


def load_pairs(store: FeatureStore, targets: Tensor, references: Tensor, against: str = "reference") -> Batch:
    """The features of targets and references, rows (B,) each, in float32 on the device.

    `against` says whom previews are compared with: the face of the "reference", or the "centroid" of all photos of the
    person.
    """
    wanted = store.centroids(references) if against == "centroid" else store.embeddings(references)
    return Batch(
        rows=targets,
        latents=_float(store.latents(targets)),
        landmarks=_float(store.landmarks(targets)),
        condition=Condition(_prompt(store, targets), _float(store.image_features(references))),
        reference=Reference(_float(store.latents(references)), _prompt(store, references)),
        embeddings=_float(wanted),
    )


def nothing(store: FeatureStore, count: int) -> Condition:
    """No prompt and no image, `count` times: what the base sees where a condition is dropped, and when guiding."""
    prompts = store.prompts
    empty = Condition(Prompt(prompts.empty_prompt_embeds, prompts.empty_pooled), prompts.null_image_features)
    return empty.map(lambda one: _float(one).expand(count, *one.shape[1:]))


def where_kept(given: Tensor, empty: Tensor, kept: Tensor) -> Tensor:
    """`given` (B, ...) where `kept` (B,) is true, else `empty`."""
    return torch.where(to_device(kept).view(-1, *[1] * (given.ndim - 1)), given, empty)


def with_drops(store: FeatureStore, condition: Condition, settings: Train, generator: Generator) -> Condition:
    """The condition with some samples' image tokens dropped, and some samples' prompts (as IP-Adapter)."""
    count = len(condition.image)
    empty = nothing(store, count)
    image_kept = draw_kept(count, settings.image_drop, generator)
    text_kept = draw_kept(count, settings.text_drop, generator)
    prompt = Prompt(
        where_kept(condition.prompt.tokens, empty.prompt.tokens, text_kept),
        where_kept(condition.prompt.pooled, empty.prompt.pooled, text_kept),
    )
    return Condition(prompt, where_kept(condition.image, empty.image, image_kept))
