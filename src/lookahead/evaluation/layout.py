"""How alike two pictures are laid out, whatever their colours and details."""

from __future__ import annotations

import numpy as np
from PIL import Image

from lookahead.evaluation.statistics import Array

CELLS = 16  # a side of the grid that a picture's luminance is averaged on


def layout(picture: Image.Image) -> Array:
    """Where a picture is light and dark: a unit vector (CELLS², ) whose entries sum to 0.

    The luminance is low-passed by averaging it on a coarse grid, so that the faces' details do not count, and the mean
    is taken off. The product of two such vectors is their correlation, the structure term of SSIM (Wang et al. 2004,
    Eq. 10) over the whole picture, which neither brightness nor contrast changes. An even picture gives zeros.
    """
    grey = picture.convert("L").resize((CELLS, CELLS), Image.Resampling.BOX)
    values = np.asarray(grey, np.float64).reshape(-1)
    centred: Array = values - values.mean()
    return centred / max(float(np.linalg.norm(centred)), 1e-12)
