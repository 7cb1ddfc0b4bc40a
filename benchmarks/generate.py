"""Images per second of the stage `generate`, against one prompt per call as the official script does it.

    .venv/bin/python benchmarks/generate.py                 # the world of params.yaml, 100 pictures each way
    .venv/bin/python benchmarks/generate.py --memory 1000 20000

The official way is written anew from its description: each picture is a pipeline call of its own, which embeds its
prompt and decodes its latents alone; its face is looked for, and its PNG compressed, before the next one begins. What
draws (models, steps, number format, threads) is the stage's, so the figures compare ways of working only. Both ways
take turns, so that a busy machine disturbs them alike; `drawing` leaves faces and PNGs out.

With `--memory`, a child process for each size draws a dataset below `state/benchmarks/`, with every combination of the
prompts' parts as people, and the kernel's count of its peak memory is told. Started again, it continues at the missing
shards; the last one is always drawn anew, so that a peak is one of drawing and judging.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from chain import measure  # type: ignore[import-not-found]  # benchmarks/chain.py: a script's own folder is on the path
from PIL import Image

SCRIPT = Path(__file__)
KEPT = Path("state", "benchmarks", "generate")
LARGER = 1.1  # how much more memory the largest dataset may take than the smallest


class Silent:
    """A progress bar that shows nothing."""

    def update(self, count: int) -> None:
        """Take no notice."""


def speeds(count: int) -> dict[str, tuple[float, float]]:
    """Images per second in batches and one by one, of the same pictures: drawn alone, and with faces and PNGs."""
    from lookahead.config import read_params
    from lookahead.dataset.drawing import Plan, draw_and_inspect, draw_pictures
    from lookahead.dataset.prompts import read_prompts
    from lookahead.dataset.shards import Picture
    from lookahead.world import open_faces, open_generator, quiet_alignment

    world = read_params().active
    settings, checkpoints = world.generate, world.checkpoints
    pictures = Plan(read_prompts(settings.prompts), settings).pictures(range(count))
    pipe, faces = open_generator(checkpoints), open_faces(checkpoints.faces.select, checkpoints.faces.detection_size)

    def look(part: Sequence[Picture]) -> object:
        return draw_and_inspect(pipe, faces, part, checkpoints, settings.batch_size, Silent())

    ways: dict[str, Callable[[Sequence[Picture]], object]] = {
        "drawing": lambda part: [
            draw_pictures(pipe, part[start : start + settings.batch_size], checkpoints)
            for start in range(0, len(part), settings.batch_size)
        ],
        "drawing, faces and PNGs": look,
    }
    taken = {name: [0.0, 0.0] for name in ways}
    with quiet_alignment():
        look(pictures[:1])  # warms up
        # Two batches at a time: the first one's faces are looked for while the second is drawn.
        for start in range(0, len(pictures), 2 * settings.batch_size):
            rows = pictures[start : start + 2 * settings.batch_size]
            for name, way in ways.items():
                for side, parts in enumerate(([rows], [[row] for row in rows])):
                    begun = time.perf_counter()
                    for part in parts:
                        way(part)
                    taken[name][side] += time.perf_counter() - begun
    return {name: (len(pictures) / batch, len(pictures) / single) for name, (batch, single) in taken.items()}


def png_seconds(size: int) -> float:
    """Seconds to encode one smooth picture of `size` pixels with a little grain, as the shards hold them."""
    from lookahead.dataset.shards import encode_png

    draw = np.random.default_rng(0)
    smooth = Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)).resize((size, size))
    grain = draw.normal(0, 2, (size, size, 3))
    pixels = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)
    begun = time.perf_counter()
    encode_png(pixels)
    return time.perf_counter() - begun


def draw(count: int, work: Path) -> None:
    """Make a dataset of at least `count` pictures of the world of params.yaml, or what is missing of it."""
    import yaml

    from lookahead.config import read_params, read_yaml
    from lookahead.dataset.drawing import synthesise
    from lookahead.dataset.prompts import Prompts

    world = read_params().active
    prompts = read_yaml(world.generate.prompts, Prompts, "the prompts file", "prompts").model_dump()
    prompts["people"]["lattice"] = None  # the miniature's chain uses one name in eight: too few here
    everybody = work.with_suffix(".yaml")
    everybody.parent.mkdir(parents=True, exist_ok=True)
    everybody.write_text(yaml.safe_dump(prompts, sort_keys=False), encoding="utf-8")
    people = -(-count // (world.generate.photos + world.generate.stylised))
    settings = world.generate.model_copy(update={"people": people, "prompts": str(everybody)})
    for last in sorted((work / "shards").glob("*.parquet"))[-1:]:
        last.unlink()
    synthesise(world.checkpoints, settings, (), work, lambda _metrics, _step: None)


def memory(sizes: Sequence[int]) -> bool:
    """Print the peak memory of drawing datasets of these sizes; whether the largest is within the aim."""
    print("| pictures | seconds | peak memory, MiB |\n|---:|---:|---:|")
    peaks = {}
    for size in sizes:
        command = [sys.executable, str(SCRIPT), "--draw", str(size), "--into", str(KEPT / str(size))]
        cost = measure("generate", command)
        peaks[size] = cost.memory
        print(f"| {size} | {cost.seconds:.0f} | {cost.memory:.0f} |", flush=True)
    ratio = peaks[max(peaks)] / peaks[min(peaks)]
    print(f"{max(peaks)} pictures take {ratio:.3f} times the memory of {min(peaks)}; at most {LARGER} is the aim")
    return ratio <= LARGER


def main() -> int:
    """Measure what the command line asks for; 1 if the largest dataset takes too much memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100, help="pictures drawn each way")
    parser.add_argument("--memory", type=int, nargs="+", metavar="N", help="datasets of N pictures")
    parser.add_argument("--draw", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        return 0 if memory(options.memory) else 1
    import torch  # here: what starts the children of `--memory` has to be small

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", len(os.sched_getaffinity(0)))))  # as a stage does
    if options.draw:
        draw(options.draw, options.into)
        return 0
    for name, (batch, single) in speeds(options.images).items():
        told = f"in batches {batch:.2f} images/s, one by one {single:.2f}: {batch / single:.1f} times as fast"
        print(f"{name}, {torch.get_num_threads()} threads: {told}")
    print(f"PNG of 1024 pixels: {png_seconds(1024):.3f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
