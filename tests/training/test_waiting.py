"""Nothing in a step reads a number from the device but its end: on a GPU each reading waits for all that is queued."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lookahead.training import loop, losses
from lookahead.training.data import draw_both
from lookahead.training.loop import backward, draw_batch
from lookahead.training.losses import read

READING = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal", "aten::masked_select")


class Readings(TorchDispatchMode):
    """Counts the operations whose result the processor, or the next shape, depends on; indexing by a mask is one."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split(".")[0]
        indices = args[1] if name in ("aten::index", "aten::index_put_", "aten::index_put") else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        if name in READING or by_mask:
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("shared", [False, True])
def test_a_micro_batch_reads_nothing(opened, shared, monkeypatch):
    """Once its pairs are read from the features and its draws are made, both on the CPU."""
    training = opened({"kv": {"enabled": True}, "share_timesteps": shared, "gradient_checkpointing": True})
    batch = draw_batch(training, 0)
    draws = draw_both(batch.latents.shape, training.settings, training.timesteps, 0)
    for module, name, value in ((loop, "draw_batch", batch), (loop, "draw_both", draws), (losses, "scale_at", 0.5)):
        monkeypatch.setattr(module, name, lambda *_, value=value: value)
    with Readings() as readings:
        figures = backward(training, 0)
    assert not readings.seen
    with Readings() as readings:
        read([figures])
        figures["distance"].item()
    assert readings.seen == {"aten::_local_scalar_dense": 1}, "the count can fail"
