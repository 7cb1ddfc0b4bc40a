"""What an evaluation leaves, made by hand and small: the long table, pictures, people, previews and a protocol."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image

from lookahead.artifacts import digest, write_parquet
from lookahead.evaluation.pictures import png
from lookahead.portraits import Person, read_people

PEOPLE, STYLES, SCENES = 4, ["photo", "oil", "pencil"], ["snow", "beach"]
GROUPS = {"recontextualise": ["photo"], "restyle": ["oil", "pencil"]}
METRICS = ("identity", "prompt", "clip_t", "detected", "identity_select", "identity_loss", "style_right", "leak")
SHOTS = [("photo", "snow"), ("photo", "beach"), ("oil", "snow"), ("pencil", "beach")]


def long_table(shifts: Mapping[str, float], seeds: int = 1, samplers: tuple[str, ...] = ("full",)) -> pd.DataFrame:
    """One row a picture; a cell's identity is higher by its shift, and the cell `adapter` was not trained."""
    generator = np.random.default_rng(0)
    rows = []
    for (cell, shift), sampler in product(shifts.items(), samplers):
        for seed, person, (style, scene) in product([-1] if cell == "adapter" else range(seeds), range(PEOPLE), SHOTS):
            row: dict[str, Any] = {"cell": cell, "sampler": sampler, "training_seed": seed}
            row |= {
                "person": person,
                "style": style,
                "scene": scene,
                "caption": f"a {style}, {scene}",
                "repeat": 0,
                "noise_seed": person,
            }
            row |= {metric: 0.5 + generator.normal(0, 0.002) for metric in METRICS}
            row["identity"] += shift + 0.05 * person
            rows.append(row | {"detected": float(style != "oil"), "prompt": 0.5})
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, folder: Path) -> dict[str, Path]:
    """The pictures that the table is of, by cell: a colour a cell and person, in two shards."""
    for number, ((cell, sampler, seed), rows) in enumerate(table.groupby(["cell", "sampler", "training_seed"])):
        colours = [(40 * number % 256, 60 * row.person % 256, 25 * len(row.style)) for row in rows.itertuples()]
        images = [png(Image.new("RGB", (16, 16), colour)) for colour in colours]
        for shard, part in enumerate((images[:7], images[7:])):
            path = folder / str(cell) / str(sampler) / str(seed) / f"{shard:05d}.parquet"
            write_parquet(path, pa.table({"image": part}))
    return {str(cell): folder / str(cell) for cell in table["cell"].unique()}


def portraits(folder: Path) -> list[Person]:
    """People with one photo each."""
    for person in range(PEOPLE):
        (folder / f"{person:03d}").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 16), (9, 9, 50 * person)).save(folder / f"{person:03d}" / "a.png")
    return read_people(folder)


def protocol(**changes: object) -> dict[str, Any]:
    """What `protocol.json` holds."""
    content: dict[str, Any] = {
        "people": [f"{person:03d}" for person in range(PEOPLE)],
        "prompts": [f"a {style}, {scene}" for style in STYLES for scene in SCENES],
        "words": {"style": STYLES, "scene": SCENES},
        "groups": GROUPS,
        "settings": {"num_inference_steps": 2, "seed": 1},
        "judges": {"scorer": ["a", None]},
    }
    content |= changes
    return content | {"hash": digest(content), "steering": None}


def previews() -> pd.DataFrame:
    """One-step previews at two timesteps and strengths."""
    rows = [{"t": t, "scale": scale, "identity": scale + t / 1000} for t in (900, 100) for scale in (0.0, 0.5)]
    table = pd.DataFrame(rows)
    return table.assign(identity_low=table["identity"] - 0.1, identity_high=table["identity"] + 0.1, error=0.2)
