"""One picture of the dataset to look at: a row a person, dropped pictures dimmed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from lookahead.artifacts import atomic
from lookahead.dataset.consistency import Verdict
from lookahead.dataset.shards import Pixels, list_shards, read_pictures

PEOPLE = 8  # rows
_GREY = 160.0


def _dimmed(pixels: Pixels) -> Pixels:
    return (0.25 * pixels + 0.75 * _GREY).astype(np.uint8)


def save_gallery(folder: Path, verdicts: Sequence[Verdict], width: int) -> None:
    """Save `samples.png`: the first people of a dataset, `width` pictures each.

    Raises:
        InputError: a shard is damaged, or the disk is full.
    """
    every = (pixels for path in list_shards(folder) for _, pixels in read_pictures(path))
    shown = [p if v.kept else _dimmed(p) for p, v in islice(zip(every, verdicts, strict=False), PEOPLE * width)]
    if len(shown) > width:  # own photos need not fill the last row
        shown += [np.full_like(shown[0], int(_GREY))] * (-len(shown) % width)
    rows = [np.concatenate(shown[start : start + width], axis=1) for start in range(0, len(shown), width)]
    with atomic(folder / "samples.png") as path:
        Image.fromarray(np.concatenate(rows)).save(path, format="PNG")
