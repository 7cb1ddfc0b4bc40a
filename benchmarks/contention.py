"""What a busy neighbour costs: a training step of the miniature's U-Net beside 0, 1 and 2 other busy processes.

    .venv/bin/python benchmarks/contention.py              # ten rounds, a quarter of an hour on two idle cores
    .venv/bin/python benchmarks/contention.py --rounds 2

Each way of waiting (the variables of OpenMP, read when torch loads) has a process of its own; in every round each runs
one step with each number of neighbours. Times are divided by that of `default` without neighbours in the same round;
the table has the medians of these ratios. `two processes` are two of one thread at once: half the slower one's time.
What is chosen stands in `lookahead/__init__.py`. Begin on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
WAYS: dict[str, dict[str, str]] = {
    "default": {},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": str(count)} for count in (0, 1000, 10_000, 30_000)},
    "one thread": {"OMP_NUM_THREADS": "1"},
    "two processes": {"OMP_NUM_THREADS": "1"},
}
NEIGHBOURS = (0, 1, 2)
Worker = subprocess.Popen[str]


def work(batch: int) -> None:
    """Run a step for each line on the standard input, and print its seconds."""
    import torch
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained("models/miniature/base", subfolder="unet")
    side, channels = unet.config.sample_size, unet.config.in_channels
    noisy, t = torch.randn(batch, channels, side, side), torch.randint(0, 1000, (batch,))
    tokens = torch.randn(batch, 16, unet.config.cross_attention_dim)
    pooled = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
    added = {"text_embeds": torch.randn(batch, pooled), "time_ids": torch.zeros(batch, 6)}
    for _ in sys.stdin:
        begun = time.perf_counter()
        unet(noisy, t, tokens, added_cond_kwargs=added).sample.square().mean().backward()
        print(time.perf_counter() - begun, flush=True)


def started(variables: dict[str, str], batch: int) -> Worker:
    """A worker with these variables and no others, as many threads as cores unless they say otherwise, warmed up."""
    kept = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    threads = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    command, pipe = [sys.executable, __file__, "--work", str(batch)], subprocess.PIPE
    worker = subprocess.Popen(command, env=kept | threads | variables, text=True, stdin=pipe, stdout=pipe)
    step([worker])
    return worker


def step(workers: Sequence[Worker]) -> float:
    """Seconds of a step: of workers that run at once, the slowest one's over their number."""
    for worker in workers:
        assert worker.stdin is not None
        print(file=worker.stdin, flush=True)
    return max(float(worker.stdout.readline()) for worker in workers if worker.stdout) / len(workers)


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Busy processes."""
    busy = [subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.2)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def main() -> None:
    """Print the table of ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="how often everything is measured")
    parser.add_argument("--batch", type=int, default=24, help="pictures a step: the miniature's")
    parser.add_argument(
        "--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="the first is 1.00 in the table"
    )
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work)
        return
    print(f"load before: {os.getloadavg()[0]:.1f}", flush=True)
    ratios: dict[tuple[str, int], list[float]] = {(way, count): [] for way in options.ways for count in NEIGHBOURS}
    with ExitStack() as stack:  # closes the workers' standard inputs, which ends them
        workers: dict[str, list[Worker]] = {}
        for way in options.ways:
            number = 2 if way == "two processes" else 1
            workers[way] = [stack.enter_context(started(WAYS[way], options.batch)) for _ in range(number)]
        for _ in range(options.rounds):
            taken: dict[tuple[str, int], float] = {}
            for count in NEIGHBOURS:
                with neighbours(count):
                    taken |= {(way, count): step(group) for way, group in workers.items()}
            for key, seconds in taken.items():
                ratios[key].append(seconds / taken[options.ways[0], 0])
    print("| way of waiting | 0 neighbours | 1 | 2 | 1 : 0 |\n|---|---:|---:|---:|---:|")
    for way in options.ways:
        medians = [statistics.median(ratios[way, count]) for count in NEIGHBOURS]
        slower = statistics.median(one / idle for one, idle in zip(ratios[way, 1], ratios[way, 0], strict=True))
        print(f"| {way} | {' | '.join(f'{value:.2f}' for value in [*medians, slower])} |")


if __name__ == "__main__":
    main()
