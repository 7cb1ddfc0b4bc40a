"""A checkpoint gives everything back as it was: every entry of the optimizer, on its device, in its dtype."""

import pytest
import torch

from lookahead.training import checkpoint
from lookahead.training.checkpoint import load_checkpoint, save_checkpoint
from lookahead.training.loop import backward
from lookahead.training.networks import Training, open_training


@pytest.fixture
def training(opened) -> Training:
    """After one step of the noise loss, in which one weight had no gradient."""
    training = opened({"lookahead": {"weight": 0.0}, "ema_decay": 0.9})
    backward(training, 0)
    next(iter(training.weights.values())).grad = None
    training.optimizer.step()
    return training


def test_every_entry_comes_back_as_it_was(training, tiny_world, features, tmp_path):
    """Also entries that AdamW does not have today: of another dtype than their weight, or no tensors."""
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


@pytest.mark.parametrize("step", ["meta", "cpu"])
def test_entries_return_to_their_device(step):
    """A fused AdamW has its step on the weight's device, another one on the CPU; `meta` stands for a GPU."""
    optimizer, other = (torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2, device="meta"))]) for _ in range(2))
    (weight,), (same,) = (one.param_groups[0]["params"] for one in (optimizer, other))
    optimizer.state[weight] = {"step": torch.tensor(3.0, device=step), "exp_avg": torch.zeros(2, device="meta")}
    tensors, rest = checkpoint._flattened(optimizer)
    read = {
        path: value if path in rest["on_cpu"] else torch.empty_like(value, device="cpu")
        for path, value in tensors.items()
    }
    checkpoint._restore_optimizer(other, read, rest)
    assert {name: value.device.type for name, value in other.state[same].items()} == {"step": step, "exp_avg": "meta"}
