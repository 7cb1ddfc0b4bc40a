"""What a training step costs, with the method's parts and each lever on and off, and the official way's: one command.

    .venv/bin/python -m benchmarks.train                 # SDXL's full size on a GPU, reduced width on a CPU: 9 minutes
    .venv/bin/python -m benchmarks.train --reduced --steps 6 --json figures.json
    .venv/bin/python -m benchmarks.train --project       # full size on paper: FLOP and memory, without a GPU

Weights are random: no checkpoint is needed, and no network. Full size wants 80 GB; what does not fit is shown as such.
Every row runs in a process of its own, so that its peak memory is its own, and is printed when it ends, so that a run
that is stopped keeps what it has. `share` is model FLOP utilisation: the FLOP that an image has to cost, recomputation
left out, over its time and the machine's rate on a large product. A row that recomputes or is compiled takes the count
of the plain row that does the same work.

`official` is this code's own version of the official loop, from its description: four U-Nets, all encoders in the loop,
a face detector for every preview, two passes of the KV-encoder, the LoRA fused anew every five steps, two optimisers.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.official import RELOAD, Official
from benchmarks.ours import Levers, Ours
from benchmarks.sdxl import FULL, REDUCED, SD15, Sizes
from lookahead.world import device

BASES = {"sdxl": FULL, "sd15": SD15}
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
    cells = [figure(cost.step * 1e3, ".4g"), figure(1 / cost.image), figure(ratio(cost.flop, 1e12))]
    cells += [figure(share, ".0%"), figure(cost.memory)]
    cells += [figure(ratio(cost.image, whole.image) if whole else None, ".2f")]
    cells += [figure(ratio(cost.memory, whole.memory) if whole else None, ".2f")]
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


LEAST = 5.0  # seconds that a row is not begun without


def wait() -> None:
    """Until the device's queue is empty."""
    if device().type == "cuda":
        torch.cuda.synchronize()


def timed(step: Callable[[int], None], number: int) -> float:
    """Seconds of one step; on a CPU those of the processor, because other programs may run."""
    clock = time.perf_counter if device().type == "cuda" else time.process_time
    wait()
    start = clock()
    step(number)
    wait()
    return clock() - start


def peak() -> float:
    """GiB: the allocator's peak on a GPU, the process's on a CPU."""
    if device().type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def matrix_rate() -> float:
    """FLOP/s of a large product in bfloat16 on a GPU, in float32 on a CPU."""
    side, kind = (8192, torch.bfloat16) if device().type == "cuda" else (1024, torch.float32)
    one, other = (torch.randn(side, side, device=device(), dtype=kind) for _ in range(2))
    taken = min(timed(lambda _: torch.mm(one, other), 0) for _ in range(5))  # type: ignore[arg-type]
    return 2 * side**3 / taken


def measure(name: str, sizes: Sizes, batch: int, steps: int) -> Cost:
    """Run one row in this process: two steps to warm up, then the median, then one that is counted."""
    levers, before = ROWS[name], peak()
    batch = levers.batch or batch
    worker = opened(levers, sizes, batch)
    count = -(-steps // RELOAD) * RELOAD if levers.official else steps  # the LoRA is loaded in every fifth step
    taken = [timed(worker.step, number) for number in range(count + 2)][2:]
    typical = statistics.mean(taken) if levers.official else statistics.median(taken)
    held = peak() - before
    return Cost(name, batch, typical, held, flop(lambda: worker.step(1)) / batch if plain(levers) else None)


def in_process(name: str, options: argparse.Namespace, limit: float) -> Cost | str:
    """Run one row in a process of its own; its cost, or the last line that it said when it failed."""
    command = [sys.executable, "-m", "benchmarks.train", "--row", name]
    command += ["--base", options.base, "--steps", str(options.steps), "--batch", str(options.batch)]
    command += ["--reduced"] * options.reduced
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"not done in {limit:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["killed"])[-1][:100]
    return Cost(**json.loads(done.stdout.strip().splitlines()[-1]))


def in_turn(options: argparse.Namespace) -> Iterator[tuple[str, Cost | str]]:
    """Each row and what it cost, or why that is not known: an error, or the time was up before it."""
    end = time.monotonic() + options.minutes * 60
    for name in options.rows:
        left = end - time.monotonic()
        if left < LEAST:
            yield name, f"not reached in {options.minutes:g} minutes"
        else:
            yield name, in_process(name, options, left if ROWS[name].compiled else min(left, options.limit))


def table(found: Iterator[tuple[str, Cost | str]], rate: float, json_file: Path | None) -> None:
    """Print each row when it ends, with the full method's as measure; keep them in the file, too."""
    costs: list[Cost] = []
    results: dict[str, object] = {"matrix": rate}
    print(HEAD, flush=True)
    for name, cost in found:
        if isinstance(cost, str):
            print(f"| {name} | {cost} |{' |' * 6}", flush=True)
            results[name] = cost
        else:
            costs.append(with_work(cost, costs))
            whole = next((other for other in costs if other.row == FULL_METHOD), None)
            print(line(costs[-1], whole, rate), flush=True)
            results[name] = asdict(costs[-1])
        if json_file:
            json_file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reduced", action="store_true", help="reduced width (measuring without a GPU always is)")
    parser.add_argument("--steps", type=int, default=10, help="that count; two more warm up")
    parser.add_argument("--batch", type=int, default=1, help="images a step, where the row does not say")
    parser.add_argument("--minutes", type=float, default=9, help="for all rows; the last ones get what is left")
    parser.add_argument("--limit", type=float, default=120, help="seconds a row may take that is not compiled")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS), help="only these")
    parser.add_argument("--project", action="store_true", help="FLOP and memory on paper; nothing is measured")
    parser.add_argument("--base", choices=list(BASES), default="sdxl", help="whose full size; sd15 has no official row")
    parser.add_argument("--rate", type=float, default=790, help="TFLOP/s that a projected time supposes (an H200's)")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write what is measured to this file")
    return parser.parse_args()


def main() -> None:
    """Print the table, or with --row measure one row and print it as JSON."""
    options = arguments()
    if options.project:
        from benchmarks import projection  # here, because it reads the rows above

        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # on paper a GPU is not used, so that it projects the same everywhere
        projection.table(options.rows, REDUCED if options.reduced else BASES[options.base], options.batch, options.rate)
        return
    options.reduced = options.reduced or device().type == "cpu"
    sizes = REDUCED if options.reduced else BASES[options.base]
    if options.row:
        print(json.dumps(asdict(measure(options.row, sizes, options.batch, options.steps))))
        return
    name = torch.cuda.get_device_name() if device().type == "cuda" else "CPU"
    rate = matrix_rate()
    width = "reduced width" if options.reduced else "full size"
    print(f"{name}, {width}, {torch.get_num_threads()} threads, matrix {rate / 1e12:.3g} TFLOP/s\n", flush=True)
    table(in_turn(options), rate, options.json)


if __name__ == "__main__":
    main()
