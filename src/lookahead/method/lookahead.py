"""The lookahead loss: does the preview show the person of the reference?

Every function `x_distance(embedding, reference)` here is the distance that `params.yaml` calls x.
"""

from __future__ import annotations

import torch
from torch import Tensor


def identity_distance(embedding: Tensor, reference: Tensor) -> Tensor:
    """D = 1 - cos(embedding, reference), (B,) in [0, 2], for face embeddings (B, E) of any length (Eq. 4)."""
    return 1 - torch.nn.functional.cosine_similarity(embedding, reference, dim=1)


def lookahead_loss(distance: Tensor, scale: float, times_scale: bool) -> Tensor:
    """L_LH, the mean of the distances (B,); with `times_scale` it counts as much as the child was trusted (Eq. 4).

    Multiplying by alpha_LoRA is the official code's: a preview at a low strength is blurred and its distance unsure.
    """
    return distance.mean() * (scale if times_scale else 1.0)
