"""How noise predictions are combined when sampling."""

from __future__ import annotations

from torch import Tensor


def classifier_free(unconditional: Tensor, conditional: Tensor, weight: float) -> Tensor:
    """e_uncond + weight (e_cond - e_uncond), for predictions of equal shape; weight 1 is no guidance (§3)."""
    return unconditional + weight * (conditional - unconditional)
