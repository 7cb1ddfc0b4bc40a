"""The portraits of people no part was trained on: three photos each, in folders that everything downstream reads."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from lookahead.config import Miniature
from miniature.renderer import draw_identities, render
from miniature.words import SCENES

PHOTOS = 3
SETS = ("search", "validation", "test")
_SEED = 77_000  # far from the training pools' seeds: anonymous people, so that names cannot give them away


def build_portraits(sizes: Miniature, out: Path) -> None:
    """Write `<out>/{search,validation,test}/<person>/<0..2>.jpg`."""
    counts = dict(zip(SETS, (sizes.search_people, sizes.validation_people, sizes.test_people), strict=True))
    for offset, (name, count) in enumerate(counts.items()):
        generator = torch.Generator().manual_seed(_SEED + offset)
        people = draw_identities(count, generator).repeat_interleave(PHOTOS, 0)
        scene = torch.randint(len(SCENES), (len(people),), generator=generator)
        drawn = render(people, torch.zeros(len(people), dtype=torch.int64), scene, generator, "portrait")
        pictures = ((drawn.pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        for row, picture in enumerate(pictures):
            path = out / name / f"{row // PHOTOS:03d}" / f"{row % PHOTOS}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path, quality=95, subsampling=0)
