"""What a training step costs, with the method's parts and each lever on and off, and the official way's: one command.

    .venv/bin/python -m benchmarks.train                 # SDXL's full size on a GPU, reduced width on a CPU
    .venv/bin/python -m benchmarks.train --reduced --steps 6 --json figures.json

Weights are random: no checkpoint is needed, and no network. Full size wants 80 GB; what does not fit is shown as such.
Every row runs in a process of its own, so that its peak memory is its own. `matrix` is the machine's rate on a large
product. `official` is this code's own version of the official
training loop, from its description: four U-Nets, VAE, text and image encoders in the loop, a face detector for every
preview, the KV-encoder run twice, the LoRA loaded and fused anew every five steps, two optimiser steps.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from benchmarks.official import Official
from benchmarks.ours import Ours
from benchmarks.parts import Levers
from benchmarks.sdxl import FULL, REDUCED, Sizes
from lookahead.world import device

ROWS = {
    "noise loss alone": Levers(lookahead=False, kv=False),
    "+ lookahead": Levers(kv=False),
    "+ KV-encoder": Levers(),
    "+ KV-encoder, a pass for each loss": Levers(share=False),
    "+ KV-encoder, checkpointing": Levers(checkpointing=True),
    "+ KV-encoder, channels_last": Levers(channels_last=True),
    "+ KV-encoder, compiled": Levers(compiled=True),
    "+ KV-encoder, compiled, checkpointing": Levers(compiled=True, checkpointing=True),
    "+ KV-encoder, compiled, half the activations": Levers(compiled=True, memory_budget=0.5),
    "+ KV-encoder, float32": Levers(precision="float32"),
    "official": Levers(official=True),
    "official, checkpointing": Levers(official=True, checkpointing=True),
}


@dataclass(frozen=True)
class Cost:
    """Seconds a step and an image (median), and the most memory held, in GiB, on the GPU or of the process."""

    row: str
    step: float
    image: float
    memory: float


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
    """TFLOP/s of a large product in bfloat16 on a GPU, in float32 on a CPU."""
    side, kind = (8192, torch.bfloat16) if device().type == "cuda" else (1024, torch.float32)
    one, other = (torch.randn(side, side, device=device(), dtype=kind) for _ in range(2))
    taken = min(timed(lambda _: torch.mm(one, other), 0) for _ in range(5))  # type: ignore[arg-type]
    return 2 * side**3 / taken / 1e12


def measure(name: str, sizes: Sizes, batch: int, steps: int) -> Cost:
    """Run one row in this process: two steps to warm up, then the median."""
    levers = ROWS[name]
    worker = (Official if levers.official else Ours)(sizes, batch, levers)
    taken = [timed(worker.step, number) for number in range(steps + 2)][2:]
    median = statistics.mean(taken) if levers.official else statistics.median(taken)  # the LoRA is reloaded every fifth
    return Cost(name, median, median / batch, peak())


def in_process(name: str, options: argparse.Namespace) -> Cost | str:
    """Run one row in a process of its own; its cost, or the last line that it said when it failed."""
    command = [sys.executable, "-m", "benchmarks.train", "--row", name]
    command += ["--steps", str(options.steps), "--batch", str(options.batch), *["--reduced"] * options.reduced]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=options.limit)
    except subprocess.TimeoutExpired:
        return f"longer than {options.limit} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["killed"])[-1][:100]
    return Cost(**json.loads(done.stdout.strip().splitlines()[-1]))


def table(found: dict[str, Cost | str]) -> None:
    """Print the rows, and each one's time and memory over those of the full method."""
    whole = found.get("+ KV-encoder")
    print("| step | s | images/s | GiB | time : full method | memory : full method |\n|---|---:|---:|---:|---:|---:|")
    for name, cost in found.items():
        if isinstance(cost, str):
            print(f"| {name} | {cost} | | | | |")
            continue
        ratios = (cost.step / whole.step, cost.memory / whole.memory) if isinstance(whole, Cost) else (0.0, 0.0)
        figures = f"{cost.step:.3g} | {1 / cost.image:.3g} | {cost.memory:.3g} | {ratios[0]:.2f} | {ratios[1]:.2f}"
        print(f"| {name} | {figures} |")


def main() -> None:
    """Print the table, or with --row measure one row and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reduced", action="store_true", help="reduced width (always without a GPU)")
    parser.add_argument("--steps", type=int, default=10, help="that count; two more warm up")
    parser.add_argument("--batch", type=int, default=1, help="images a step")
    parser.add_argument("--limit", type=int, default=50, help="seconds a row may take")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS), help="only these")
    parser.add_argument("--here", action="store_true", help="all rows in one process: sooner, and without their memory")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    options.reduced = options.reduced or device().type == "cpu"
    sizes = REDUCED if options.reduced else FULL
    if options.row:
        print(json.dumps(asdict(measure(options.row, sizes, options.batch, options.steps))))
        return
    name = torch.cuda.get_device_name() if device().type == "cuda" else "CPU"
    print(
        f"{name}, {'reduced width' if options.reduced else 'full size'}, matrix {matrix_rate():.3g} TFLOP/s\n",
        flush=True,
    )
    if options.here:
        found: dict[str, Cost | str] = {
            row: replace(measure(row, sizes, options.batch, options.steps), memory=math.nan) for row in options.rows
        }
    else:
        found = {row: in_process(row, options) for row in options.rows}
    table(found)
    if options.json:
        told = {row: asdict(cost) if isinstance(cost, Cost) else cost for row, cost in found.items()}
        options.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
