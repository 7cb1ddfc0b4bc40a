"""A checkpoint gives everything back as it was: every entry of the optimizer, on its device, in its dtype."""

from pathlib import Path

import pytest
import torch

from lookahead.config import Checkpoints, Train
from lookahead.training.checkpoint import load_checkpoint, save_checkpoint
from lookahead.training.loop import backward
from lookahead.training.networks import Training, open_training
from tests.training.conftest import changed


@pytest.fixture
def training(tiny_world: Checkpoints, settings: Train, features: Path) -> Training:
    """After one step of the noise loss, in which one weight had no gradient."""
    training = open_training(tiny_world, changed(settings, {"lookahead": {"weight": 0.0}, "ema_decay": 0.9}), features)
    backward(training, 0)
    next(iter(training.weights.values())).grad = None
    training.optimizer.step()
    return training


def test_every_entry_comes_back_as_it_was(
    training: Training, tiny_world: Checkpoints, features: Path, tmp_path: Path
) -> None:
    """Also entries that AdamW does not have today: of another dtype, on another device than their weight, no tensor."""
    optimizer, weights = training.optimizer, list(training.weights.values())
    odd = {"count": torch.tensor(2**40 + 1), "half": torch.ones(3, dtype=torch.bfloat16) / 3, "name": "x", "none": None}
    optimizer.state[weights[1]].update(odd)
    curves = [{"loss": 0.1, "distance_t0": float("inf")}]
    save_checkpoint(tmp_path, training, curves)
    other = open_training(tiny_world, training.settings, features)
    assert load_checkpoint(tmp_path, other) == curves
    saved, restored = optimizer.state_dict(), other.optimizer.state_dict()
    assert restored["param_groups"] == saved["param_groups"]
    assert restored["state"].keys() == saved["state"].keys() and 0 not in saved["state"]
    for number, entries in saved["state"].items():
        assert restored["state"][number].keys() == entries.keys()
        for name, value in entries.items():
            found = restored["state"][number][name]
            if isinstance(value, torch.Tensor):
                assert (found.device, found.dtype) == (value.device, value.dtype) and torch.equal(found, value)
            else:
                assert found == value
    for ours, theirs in ((training.weights, other.weights), (training.ema, other.ema)):
        assert ours.keys() == theirs.keys() and all(torch.equal(theirs[name], ours[name]) for name in ours)
