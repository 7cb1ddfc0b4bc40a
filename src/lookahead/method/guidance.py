"""How noise predictions are combined when sampling."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def guided(unconditional: Tensor, conditional: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """e_0 + sum_i w_i (e_i - e_0), for predictions of equal shape (§3, official code).

    One condition is classifier-free guidance. The official release has three: image tokens (3), image tokens with keys
    and values (2), keys and values alone (2), each with the text.
    """
    prediction = unconditional
    for weight, one in zip(weights, conditional, strict=True):
        prediction = prediction + weight * (one - unconditional)
    return prediction
