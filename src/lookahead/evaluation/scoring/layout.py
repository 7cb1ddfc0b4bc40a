"""How alike two pictures are on a coarse grid, whatever their details: in layout, and in colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]
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


def colours(picture: Image.Image) -> Array:
    """Which colours a picture has where: a unit vector (CELLS² · 3,) of its coarse grid about mid-grey.

    The product of two such vectors is near 1 where clothes, hair and background agree.
    """
    coarse = np.asarray(picture.convert("RGB").resize((CELLS, CELLS), Image.Resampling.BOX), np.float64)
    about: Array = coarse.reshape(-1) - 127.5
    return about / max(float(np.linalg.norm(about)), 1e-12)


def leaking(reference: Image.Image, others: Sequence[Image.Image]) -> Array:
    """What is particular to the reference's colours: its own less the mean of the person's other photos, (CELLS² · 3,).

    The product with a picture's `colours` is its leak. Hair and skin are alike in all photos of a person, clothes and
    background are not: above 0, those of the reference are in the picture. NaN where there is no other photo.
    """
    if not others:
        return np.full(CELLS * CELLS * 3, np.nan)
    particular: Array = colours(reference) - np.mean([colours(other) for other in others], axis=0)
    return particular
