"""The benchmark of a training step does the work that it says: both ways, on pictures of 64 pixels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.official import Official
from benchmarks.ours import Ours
from benchmarks.parts import Levers
from benchmarks.sdxl import REDUCED
from benchmarks.train import Cost, table

SMALL = replace(
    REDUCED,
    side=64,
    unet=REDUCED.unet | {"block_out_channels": (32, 64, 64), "attention_head_dim": (1, 1, 1)},
    text=REDUCED.text | {"num_hidden_layers": 1},
    text_2=REDUCED.text_2 | {"num_hidden_layers": 1},
    vision=REDUCED.vision | {"num_hidden_layers": 1},
)


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
    first = child
    official.step(1)
    assert official.child is first
    official.step(5)
    assert official.child is not first


def test_the_table_shows_ratios_to_the_full_method_and_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    table(
        {
            "+ KV-encoder": Cost("+ KV-encoder", 2.0, 1.0, 10.0),
            "official": Cost("official", 6.0, 3.0, 25.0),
            "x": "out of memory",
        }
    )
    shown = capsys.readouterr().out
    assert "| official | 6 | 0.333 | 25 | 3.00 | 2.50 |" in shown and "| x | out of memory |" in shown
