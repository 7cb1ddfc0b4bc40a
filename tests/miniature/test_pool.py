"""The pool: each shard depends on its index alone, and captions tell what the picture shows."""

from pathlib import Path

import pytest
import torch

from miniature import pool as module
from miniature.adapter import reference_rows
from miniature.pool import build_pool, open_pool
from miniature.words import FIRST, LAST, STYLES, held_out


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "SHARD", 12)  # sizes only
    build_pool(tmp_path, 2, seed=3)
    return tmp_path


def test_a_lost_shard_comes_back_the_same(folder: Path) -> None:
    before = (folder / "001.safetensors").read_bytes()
    (folder / "001.safetensors").unlink()
    build_pool(folder, 2, seed=3)
    assert (folder / "001.safetensors").read_bytes() == before


def test_captions_name_style_and_person(folder: Path) -> None:
    pool = open_pool(folder)
    assert len(pool) == 24
    for row in range(len(pool)):
        assert pool.caption(row).startswith(list(STYLES.values())[pool.style[row]])
        if pool.first[row] >= 0:
            assert not held_out(int(pool.first[row]), int(pool.last[row]))
            assert f"{FIRST[pool.first[row]]} {LAST[pool.last[row]]}" in pool.caption(row)
        else:
            assert "a person" in pool.caption(row)


def test_references_show_the_same_person(folder: Path) -> None:
    pool = open_pool(folder)
    references = reference_rows(pool)
    same = references == torch.arange(len(pool))
    other = references[~same]
    assert torch.equal(pool.first[references], pool.first) and torch.equal(pool.last[references], pool.last)
    assert (pool.style[other] == 0).all()
