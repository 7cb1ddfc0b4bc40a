"""Compiled U-Nets train as plain ones do, and nothing that changes from step to step compiles them again.

The backend `aot_eager` makes the graphs of forward and backward and runs them by torch's own kernels: no C++ compiler.
"""

import pytest
import torch
from torch._dynamo.utils import counters

from lookahead.training.loop import backward, draw_samples
from lookahead.training.losses import read
from lookahead.training.networks import Training

pytestmark = pytest.mark.slow

BACKEND = "aot_eager"
KV = {"kv": {"enabled": True}, "share_timesteps": True}
GRAPHS = {"lookahead": 2, "kv": 3, "checkpointing": 3}  # the base and the child, and the KV-encoder
CHANGES = {"lookahead": {}, "kv": KV, "checkpointing": KV | {"gradient_checkpointing": True}}


def step(training: Training, index: int) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    training.optimizer.zero_grad(set_to_none=True)
    row = read([backward(training, index)])[0]
    return row, {name: weight.grad for name, weight in training.weights.items() if weight.grad is not None}


def assert_equal(gradients: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Each weight's, by 1e-5 of its own largest number or of the typical weight's: some have nearly none."""
    assert gradients.keys() == wanted.keys()
    largest = {name: gradient.abs().max().item() for name, gradient in wanted.items()}
    typical = sorted(largest.values())[len(largest) // 2]
    assert typical > 0
    for name, gradient in wanted.items():
        error = (gradients[name] - gradient).abs().max().item()
        assert error < 1e-5 * max(typical, largest[name]), name


@pytest.mark.parametrize("case", CHANGES)
def test_a_compiled_step_equals_a_plain_one_and_is_compiled_once(opened, settings, case):
    plain, compiled = (opened(CHANGES[case] | {"compile": on}, BACKEND) for on in (False, True))
    assert plain.weights.keys() == compiled.weights.keys()
    counters.clear()
    scales = []
    redrawn = settings.lookahead.lora_scale.redraw_every * settings.gradient_accumulation_steps
    for number in range(5):
        with torch.compiler.set_stance("fail_on_recompile" if number else "default"):
            row, gradients = step(compiled, number * redrawn)
        expected, wanted = step(plain, number * redrawn)
        scales.append(row["scale"])
        assert row == pytest.approx(expected, rel=1e-5, abs=1e-5, nan_ok=True)
        assert_equal(gradients, wanted)
    assert len({scale for scale in scales if scale < 1}) > 1 and 1.0 in scales
    assert draw_samples(compiled).tobytes() == draw_samples(plain).tobytes()  # other batch sizes
    assert counters["stats"]["unique_graphs"] == GRAPHS[case] and not counters["graph_break"]
