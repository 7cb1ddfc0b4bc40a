"""The benchmark writes features that open, and every figure is in its table."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.scale import write
from lookahead.features.store import open_features
from lookahead.training.data import Pairs, load_pairs
from tests.modules import ROOT


def test_random_features_open_and_give_pairs(tmp_path: Path) -> None:
    write(tmp_path, 30, narrow=True)
    store = open_features(tmp_path)
    batch = load_pairs(store, *Pairs(store.table, 0.0).draw(6, torch.Generator().manual_seed(0)))
    assert batch.latents.shape == (6, 4, 2, 2)


@pytest.mark.slow
def test_the_table_has_every_figure(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    script = [sys.executable, "-m", "benchmarks.scale", "--rows", "20", "--narrow"]
    done = subprocess.run(script, capture_output=True, text=True, check=True, cwd=tmp_path)
    rows = [row.split("|") for row in done.stdout.splitlines()[2:]]
    figures = {cells[1].strip(): float(cells[2]) for cells in rows}
    assert {"pairs, s", "micro-batch, from memory, ms", "own memory, MiB", "peak memory, MiB"} < set(figures)
    assert all(value > 0 for name, value in figures.items() if "read" not in name)
