"""What is counted on paper is what a step really runs and holds."""

import pytest
import torch
from torch import nn
from torch.profiler import profile

from benchmarks.ours import Levers
from benchmarks.projection import on_paper, project
from benchmarks.train import flop, opened
from tests.benchmarks import SMALL


def allocated_peak(levers: Levers) -> int:
    """The most bytes that torch's allocator had given out while a row was built and ran two steps."""
    with profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as recorded:
        worker = opened(levers, SMALL, 1)
        for number in range(2):
            worker.step(number)
    held = peak = 0
    for event in recorded.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


@pytest.mark.slow
@pytest.mark.parametrize("levers", [Levers(), Levers(official=True, checkpointing=True)], ids=["ours", "official"])
def test_the_projected_peak_is_what_the_allocator_gives_out(levers: Levers) -> None:
    assert project(levers, SMALL, 1).peak * 2**30 == pytest.approx(allocated_peak(levers), rel=0.05)


@pytest.mark.slow
def test_the_flop_on_paper_are_those_of_a_real_step_and_checkpointing_adds_to_them() -> None:
    ours, plain = opened(Levers(), SMALL, 1), project(Levers(), SMALL, 1)
    ours.step(0)
    assert flop(lambda: ours.step(1)) == plain.flop
    again = project(Levers(checkpointing=True), SMALL, 1)
    assert again.flop > plain.flop
    assert again.peak < plain.peak


def test_norms_are_float32_under_autocast_on_paper_as_on_a_gpu_and_nowhere_else() -> None:
    def kinds() -> list[torch.dtype]:
        norm, groups = nn.LayerNorm(8, dtype=torch.bfloat16), nn.GroupNorm(2, 8, dtype=torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = nn.Linear(8, 8)(torch.zeros(4, 8))
            return [hidden.dtype, norm(hidden).dtype, groups(hidden).dtype]

    with on_paper():
        assert kinds() == [torch.bfloat16, torch.float32, torch.float32]
    assert kinds() == [torch.bfloat16] * 3
