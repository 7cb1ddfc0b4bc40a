"""Images per second of the stage `generate`, against one prompt per call as the official script does it.

    .venv/bin/python benchmarks/generate.py                 # the world of params.yaml, 100 pictures each way
    .venv/bin/python benchmarks/generate.py --memory 1000 20000

Batches and single pictures take turns, so that a busy machine disturbs both alike. With `--memory`, a child process
draws a dataset of each size from nothing, and the kernel's count of its peak memory is told.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from chain import measure  # type: ignore[import-not-found]  # benchmarks/chain.py: a script's own folder is on the path
from PIL import Image

SCRIPT = Path(__file__)


def speeds(count: int) -> tuple[float, float]:
    """Images per second in batches and one by one, of the same pictures."""
    from lookahead.config import read_params
    from lookahead.data.plan import plan_pictures
    from lookahead.data.prompts import read_prompts
    from lookahead.data.synthesis import draw_pictures
    from lookahead.world import open_generator

    world = read_params().active
    pictures = plan_pictures(read_prompts(world.generate.prompts), world.generate)[:count]
    pipe = open_generator(world.checkpoints)
    pipe.set_progress_bar_config(disable=True)
    taken = {"batch": 0.0, "single": 0.0}
    draw_pictures(pipe, pictures[:1], world.checkpoints)  # warms up
    for start in range(0, len(pictures), world.generate.batch):
        rows = pictures[start : start + world.generate.batch]
        for side, parts in (("batch", [rows]), ("single", [[row] for row in rows])):
            begun = time.perf_counter()
            for part in parts:
                draw_pictures(pipe, part, world.checkpoints)
            taken[side] += time.perf_counter() - begun
    return len(pictures) / taken["batch"], len(pictures) / taken["single"]


def png_seconds(size: int) -> float:
    """Seconds to encode one smooth picture of `size` pixels with a little grain, as the shards hold them."""
    from lookahead.data.shards import encode_png

    draw = np.random.default_rng(0)
    smooth = Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)).resize((size, size))
    grain = draw.normal(0, 2, (size, size, 3))
    pixels = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)
    begun = time.perf_counter()
    encode_png(pixels)
    return time.perf_counter() - begun


def draw(count: int, work: Path) -> None:
    """Make a dataset of at least `count` pictures of the world of params.yaml."""
    from lookahead.config import read_params
    from lookahead.data.synthesis import synthesise

    world = read_params().active
    each = world.generate.photos + world.generate.stylised
    settings = world.generate.model_copy(update={"people": -(-count // each)})
    synthesise(world.checkpoints, settings, (), work, lambda _metrics, _step: None)


def memory(sizes: Sequence[int]) -> None:
    """Print the peak memory of drawing datasets of these sizes."""
    print("| pictures | seconds | peak memory, MiB |\n|---:|---:|---:|")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            cost = measure("generate", [sys.executable, str(SCRIPT), "--draw", str(size), "--into", folder])
        print(f"| {size} | {cost.seconds:.0f} | {cost.memory:.0f} |", flush=True)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="pictures drawn each way")
    parser.add_argument("--memory", type=int, nargs="+", metavar="N", help="datasets of N pictures")
    parser.add_argument("--draw", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.draw:
        draw(options.draw, options.into)
    elif options.memory:
        memory(options.memory)
    else:
        batch, single = speeds(options.images)
        print(f"in batches {batch:.2f} images/s, one by one {single:.2f}: {batch / single:.1f} times as fast")
        print(f"PNG of 1024 pixels: {png_seconds(1024):.3f} s")


if __name__ == "__main__":
    main()
