"""The benchmark of a training step does the work that it says: both ways, on pictures of 64 pixels."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.official import Official
from benchmarks.ours import Levers, Ours
from benchmarks.train import FULL_METHOD, Cost, table
from tests.benchmarks import SMALL


def frozen_bytes(*networks: nn.Module) -> int:
    """Of distinct frozen tensors."""
    held = {p.data_ptr(): p.numel() * p.element_size() for n in networks for p in n.parameters() if not p.requires_grad}
    return sum(held.values())


@pytest.mark.slow
def test_a_step_of_ours_moves_the_trained_weights_and_shares_the_frozen_ones() -> None:
    ours = Ours(SMALL, 2, Levers())
    kv = ours.networks.kv
    assert kv is not None
    trained = [p for p in ours.networks.unet.parameters() if p.requires_grad] + list(kv.parameters().values())
    before = [p.detach().clone() for p in trained]
    for step in range(2):  # a LoRA's second half starts at zero, so that its first half moves from the second step on
        ours.step(step)
    moved = sum(not torch.equal(p, old) for p, old in zip(trained, before, strict=True))
    assert moved > 0.9 * len(trained)
    assert frozen_bytes(ours.networks.unet, kv.unet) < 1.01 * frozen_bytes(ours.networks.unet)


@pytest.mark.slow
def test_a_step_of_the_official_way_holds_four_unets_and_fuses_the_lora() -> None:
    official = Official(SMALL, 1, Levers(official=True, checkpointing=True))
    trained = official.adapter[0].detach().clone()
    official.step(0)
    kv, child = official.networks.kv, official.child
    assert kv is not None and child is not None
    four = (official.networks.unet, official.twin, child, kv.unet)
    assert frozen_bytes(*four) > 3.9 * frozen_bytes(official.twin)
    assert not torch.equal(official.adapter[0], trained)
    assert not any("lora" in name for name, _ in child.named_parameters())
    for step, same in ((1, True), (5, False)):
        official.step(step)
        assert (official.child is child) is same


KV = Cost(FULL_METHOD, 1, 2.0, 10.0, 4e12)


def test_the_table_shows_shares_ratios_and_what_failed_and_keeps_each_row_as_it_ends(capsys, tmp_path: Path) -> None:
    four = Cost("+ KV-encoder, checkpointing, batch 4", 4, 12.0, 5.0, None)
    file, failed = tmp_path / "figures.json", ("+ KV-encoder, compiled", "out of memory")

    def rows() -> Iterator[tuple[str, Cost | str]]:
        yield KV.row, KV
        assert json.loads(file.read_text(encoding="utf-8"))[KV.row]["flop"] == 4e12
        yield from (("official", Cost("official", 1, 6.0, 25.0, 9e12)), (four.row, four), failed)

    table(rows(), 10e12, file)
    shown = capsys.readouterr().out
    assert "| + KV-encoder | 2000 | 0.5 | 4 | 20% | 10 | 1.00 | 1.00 |" in shown
    assert "| official | 6000 | 0.167 | 9 | 15% | 25 | 3.00 | 2.50 |" in shown
    assert "batch 4 | 1.2e+04 | 0.333 | 4 | 13% | 5 | 1.50 | 0.50 |" in shown  # the full method's work, per image
    assert "| + KV-encoder, compiled | out of memory |" in shown
