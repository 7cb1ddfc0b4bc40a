"""The rows of the training benchmark, the FLOP of a step, and the table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.official import Official
from benchmarks.ours import Levers, Ours
from benchmarks.sdxl import Sizes

FULL_METHOD = "+ KV-encoder"
ROWS = {
    FULL_METHOD: Levers(),
    "official": Levers(official=True),
    "+ KV-encoder, checkpointing": Levers(checkpointing=True),
    "official, checkpointing": Levers(official=True, checkpointing=True),
    "+ KV-encoder, checkpointing, batch 4": Levers(checkpointing=True, batch=4),
    "noise loss alone": Levers(lookahead=False, kv=False),
    "+ lookahead": Levers(kv=False),
    "+ KV-encoder, a pass for each loss": Levers(share=False),
    "+ KV-encoder, channels_last": Levers(channels_last=True),
    "+ KV-encoder, float32": Levers(precision="float32"),
    "+ KV-encoder, compiled": Levers(compiled=True),
    "+ KV-encoder, compiled, half the activations": Levers(compiled=True, memory_budget=0.5),
    "+ KV-encoder, compiled, checkpointing": Levers(compiled=True, checkpointing=True),
}


@dataclass(frozen=True)
class Cost:
    """What a row took: images and seconds a step, GiB at the peak, and FLOP an image; None is not known."""

    row: str
    batch: int
    step: float
    memory: float | None
    flop: float | None

    @property
    def image(self) -> float:
        """Seconds an image."""
        return self.step / self.batch


def opened(levers: Levers, sizes: Sizes, batch: int) -> Ours | Official:
    """The networks, features and optimisers of a row."""
    return (Official if levers.official else Ours)(sizes, batch, levers)


def plain(levers: Levers) -> bool:
    """Whether a step runs each operation once and by itself, so that what it runs is the work that has to be done."""
    return not (levers.checkpointing or levers.compiled)


def work(levers: Levers) -> tuple[bool, ...]:
    """What decides the FLOP of an image: equal for rows that differ only in how they run."""
    return levers.official, levers.lookahead, levers.kv, levers.share


def with_work(cost: Cost, found: list[Cost]) -> Cost:
    """A row that was not counted, with the FLOP of one that does the same work, if there is one."""
    same = (other.flop for other in found if work(ROWS[other.row]) == work(ROWS[cost.row]))
    return replace(cost, flop=next((flop for flop in (cost.flop, *same) if flop), None))


def figure(number: float | None, form: str = ".3g") -> str:
    """A number for a table, or a dash."""
    return "–" if number is None else format(number, form)


def ratio(number: float | None, other: float | None) -> float | None:
    """`number` / `other`, where both are known."""
    return number / other if number and other else None


HEAD = """| step | ms | images/s | TFLOP/image | share | GiB | time : full | memory : full |
|---|---:|---:|---:|---:|---:|---:|---:|"""


def line(cost: Cost, whole: Cost | None, rate: float) -> str:
    """A row of the table; `whole` is the full method's, `rate` the machine's FLOP/s on a large product.

    The share is of that rate (model FLOP utilisation); times are compared per image.
    """
    share = ratio(cost.flop, cost.image * rate)
    cells = [
        figure(cost.step * 1e3, ".4g"),
        figure(1 / cost.image),
        figure(ratio(cost.flop, 1e12)),
        figure(share, ".0%"),
        figure(cost.memory),
        figure(ratio(cost.image, whole.image) if whole else None, ".2f"),
        figure(ratio(cost.memory, whole.memory) if whole else None, ".2f"),
    ]
    return f"| {cost.row} | {' | '.join(cells)} |"


_ATTENTIONS = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")


def _attention_backward(
    _: object, query: Sequence[int], keys: Sequence[int], values: Sequence[int], *__: Any, **___: Any
) -> int:
    """Four products of matrices; torch also counts a fifth, the scores, which fused kernels compute a second time."""
    return 2 * sdpa_flop_count(query, keys, values)


def flop(step: Callable[[], object]) -> int:
    """FLOP of all matrix products, convolutions and attentions in a step, forward and backward; slows it down.

    A second computation by gradient checkpointing counts, one inside an attention's kernel does not.
    """
    names = (getattr(torch.ops.aten, f"_scaled_dot_product_{kind}_backward") for kind in _ATTENTIONS)
    with FlopCounterMode(display=False, custom_mapping=dict.fromkeys(names, _attention_backward)) as counter:
        step()
    return int(counter.get_total_flops())
