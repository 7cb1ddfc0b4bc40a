"""The lookahead loss: does the preview show the person of the reference?

`DISTANCES` holds the distances by the names that `params.yaml` uses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


def identity_distance(embedding: Tensor, reference: Tensor) -> Tensor:
    """D = 1 - cos(embedding, reference), (B,) in [0, 2], for face embeddings (B, E) of any length (Eq. 4)."""
    return 1 - torch.nn.functional.cosine_similarity(embedding, reference, dim=1)


DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"identity": identity_distance}
"""D, (B,), of the previews' and the references' face embeddings (B, E)."""


def lookahead_loss(distance: Tensor, scale: float, weight_by_scale: bool) -> Tensor:
    """L_LH, the mean of the distances (B,); with `weight_by_scale` weighted by alpha_LoRA (Eq. 4).

    Multiplying by alpha_LoRA is the official code's: a preview at a low strength is blurred and its distance unsure.
    """
    return distance.mean() * (scale if weight_by_scale else 1.0)
