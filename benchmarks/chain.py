"""Time and memory of the chain's stages, each run from scratch in a process of its own.

    .venv/bin/python -m benchmarks.chain                      # every stage, in order
    .venv/bin/python -m benchmarks.chain features evaluate    # some stages

A stage runs as `dvc repro --single-item --force STAGE`, after everything before it (`make repro`); its result is the
same as before. `seconds` is wall-clock time, `processor` the processor time of all its processes, `memory` the peak of
the largest of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass

STAGES = ("generate", "features", "train@noise_only", "train@lookahead", "evaluate")
_UNIT = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in: bytes on macOS, KiB on Linux


@dataclass(frozen=True)
class Cost:
    """What one stage took: wall-clock and processor seconds, and MiB of resident memory at the peak."""

    stage: str
    seconds: float
    processor: float
    memory: float


def measure(stage: str, command: list[str]) -> Cost:
    """Run a command and read what the kernel counted for it and its descendants.

    Linux counts the memory of the process that starts a command, too, so call this from a small one.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    start = time.perf_counter()
    child = subprocess.Popen(command)
    # wait4 counts this child alone; getrusage(RUSAGE_CHILDREN) would keep the peak of every stage before it.
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    processor = usage.ru_utime + usage.ru_stime
    return Cost(stage, time.perf_counter() - start, processor, usage.ru_maxrss * _UNIT / 2**20)


def table(costs: list[Cost]) -> str:
    """The costs as a Markdown table, with the sum of times and the largest memory below."""
    total = Cost("all", sum(c.seconds for c in costs), sum(c.processor for c in costs), max(c.memory for c in costs))
    rows = [f"| {c.stage} | {c.seconds:.0f} | {c.processor:.0f} | {c.memory:.0f} |" for c in [*costs, total]]
    return "\n".join(["| stage | seconds | processor seconds | peak memory, MiB |", "|---|---:|---:|---:|", *rows])


def main() -> int:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", default=STAGES, help=f"default: {' '.join(STAGES)}")
    options = parser.parse_args()
    dvc = [sys.executable, "-m", "dvc", "repro", "--single-item", "--force"]
    try:
        costs = [measure(stage, [*dvc, stage]) for stage in options.stages]
    except subprocess.CalledProcessError as error:
        print(f"{' '.join(error.cmd)} failed with exit code {error.returncode}; no figures", file=sys.stderr)
        return 1
    print(table(costs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
