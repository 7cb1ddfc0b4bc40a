"""The benchmark writes features that open, as large as the chain's, and tells every figure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.stand_in import Stand, sizes_of
from lookahead.config import read_params
from lookahead.features.store import open_features
from lookahead.training.data import Pairs, load_pairs

ROOT = Path(__file__).parents[2]
COMMANDS = ("add", "status", "push", "checkout", "add, one shard more", "push, one shard more")


def test_random_features_open_and_give_pairs(tmp_path: Path) -> None:
    world = read_params(ROOT / "params.yaml").active
    sizes = sizes_of(world.checkpoints)
    Stand(world.generate.model_copy(update={"shard_size": 8}), sizes).features(30, tmp_path)
    store = open_features(tmp_path)
    targets, references = Pairs(store.table, 0.0).draw(6, torch.Generator().manual_seed(0))
    batch = load_pairs(store, targets, references)
    unet = json.loads(Path(world.checkpoints.base, "unet", "config.json").read_bytes())
    assert batch.latents.shape == (6, unet["in_channels"], unet["sample_size"], unet["sample_size"])
    assert batch.condition.prompt.tokens.shape[2] == unet["cross_attention_dim"]
    assert batch.condition.image.shape[1:] == store.prompts.null_image_features.shape[1:]
    assert len(list((tmp_path / "images").iterdir())) == 4


def test_the_table_has_every_figure(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "benchmarks" / "scale.py"), "--rows", "20", "--narrow"]
    for name in ("params.yaml", "prompts"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(script, capture_output=True, text=True, check=True, cwd=tmp_path)
    header, rule, *rows = done.stdout.splitlines()
    assert (header, rule) == ("| | 20 rows | ratio |", "|---|---:|---:|")
    figures = {cells[1].strip(): float(cells[2]) for cells in (row.split("|") for row in rows)}
    assert {name for name in figures if "DVC" in name} == {f"DVC, features: {command}, s" for command in COMMANDS}
    assert {"pairs, s", "micro-batch, from memory, ms", "centroids, s", "own memory, MiB"} < set(figures)
    assert all(value > 0 for name, value in figures.items() if "read" not in name)
    assert not (tmp_path / "state" / "benchmarks" / "scale").exists()
