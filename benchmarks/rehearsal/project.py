"""A clone of the project in small: its parameters with the smallest numbers, its prompts cut short, portraits."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch.nn import functional as F

from lookahead.config import merged

ROOT = Path(__file__).parents[2]
PEOPLE = 2  # of the protocol
_ACCEPT = {"min_photo_similarity": -1.0, "min_stylised_similarity": -1.0}
CHANGES: dict[str, Any] = {  # what no user would: random weights draw nobody twice, and a few pictures must do
    "checkpoints": {"generator": {"num_inference_steps": 2}},
    "generate": {"people": 2, "photos": 2, "stylised": 1, "batch_size": 2, "min_images": 2, **_ACCEPT},
    "features": {"batch_size": 2, "max_evaluation_similarity": 1.0},
    "train": {
        "steps": 2,
        "batch_size": 1,
        "gradient_accumulation_steps": 1,
        "lr_warmup_steps": 1,
        "num_samples": 1,
        "checkpoint_every": 1,
        "sample_every": 2,
        "sample_num_inference_steps": 1,
    },
    "evaluate": {
        "batch_size": 1,
        "grid_people": 2,
        "previews": {"people": 1, "timesteps": [499], "scales": [0.0, 1.0]},
        "diversity": {"people": 2, "prompts": 1, "seeds": 2},
    },
}
SMALL: dict[str, Any] = {  # a scorer whose weights are a quarter of ViT-L's; its kind is a name, so it is not narrowed
    "checkpoints": {
        "resolution": 128,
        "generator": {"resolution": 128},
        "scorer": {"model": "RN50-quickgelu", "pretrained": "openai"},
    },
}
LARGE: dict[str, Any] = {  # a CPU's memory holds SDXL for small pictures only
    "sd15": {},
    "sdxl": {"checkpoints": {"resolution": 256, "generator": {"resolution": 256}}},
}
ONE_PREDICTION = {"image": 0.0, "both": 2.0, "kv": 0.0}  # of three, besides the unconditional one
PROTOCOL = {"people": PEOPLE, "photo_prompts": 1, "num_inference_steps": 1, "kv_guidance": ONE_PREDICTION}


def _cut(path: Path, change: Any) -> None:
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(change(tree), sort_keys=False), encoding="utf-8")


def portraits(folder: Path, side: int) -> None:
    """Two smooth pictures of each person."""
    generator = torch.Generator().manual_seed(len(folder.name))
    for person in range(PEOPLE):
        for photo in range(2):
            coarse = torch.rand(1, 3, 6, 6, generator=generator)
            pixels = F.interpolate(coarse, size=(side, side), mode="bicubic")[0].clamp(0, 1)
            path = folder / f"{person:03d}" / f"{photo}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy()).save(path, quality=95)


def write(root: Path, world: str, small: bool) -> None:
    """Write the project, unless it is there."""
    if (root / "params.yaml").is_file():
        return
    for name in ("stages", "prompts", "protocols"):
        shutil.copytree(ROOT / name, root / name, dirs_exist_ok=True)
    (root / "photos").mkdir(exist_ok=True)
    shutil.copy(ROOT / "constraints.txt", root)
    for split in ("search", "validation", "test"):
        portraits(root / "models" / world / "portraits" / split, 128 if small else 512)
    _cut(root / "protocols" / f"{world}.yaml", lambda tree: tree | PROTOCOL)
    kept = ("photo", "pencil")
    _cut(root / "prompts/people.yaml", lambda tree: tree | {"styles": {name: tree["styles"][name] for name in kept}})
    shutil.copy(ROOT / "params.yaml", root)
    changes = merged(CHANGES, SMALL if small else LARGE[world])

    def changed(tree: Any) -> Any:
        tree["worlds"][world], tree["world"] = merged(tree["worlds"][world], changes), world
        return tree

    _cut(root / "params.yaml", changed)
