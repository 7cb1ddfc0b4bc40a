"""What grows with the number of pictures in a training: opening the features and reading pairs.

    .venv/bin/python -m benchmarks.scale --rows 1000 4000             # rows as large as SDXL's
    .venv/bin/python -m benchmarks.scale --rows 20000 500000 --narrow # of few numbers: what their count alone costs

Each count has a folder of random features below `state/benchmarks/scale/`, removed at the end. A child process opens
them and reads micro-batches, first from files that the kernel has been asked to forget, by the clock on the wall, then
from those that it holds, in processor time. `own memory` is what this adds to what the libraries take. The last column
is the ratio of the last count to the first: times depend on the machine, ratios less. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

KEPT = Path("state", "benchmarks", "scale")
SDXL: dict[str, tuple[int, ...]] = {
    "latents": (4, 128, 128),
    "image": (257, 1280),
    "face": (512,),
    "tokens": (77, 2048),
    "pooled": (1280,),
}
NARROW: dict[str, tuple[int, ...]] = {
    "latents": (4, 2, 2),
    "image": (2, 8),
    "face": (8,),
    "tokens": (2, 8),
    "pooled": (8,),
}
PHOTOS, STYLISED, SHARD, BATCH = 2, 3, 1000, 4  # of a person, and of a shard and a micro-batch: the world sdxl's
COLD, WARM, TURNS = 30, 200, 5  # micro-batches; whatever else is measured several times
MIB = 2**20
Figures = dict[str, float]


def write(folder: Path, rows: int, narrow: bool) -> None:
    """Random features in the files of the stage `features`."""
    import numpy as np  # here, as all that is large: the process that measures others has to be small
    import pyarrow as pa
    import torch
    from torch import Tensor

    from lookahead.artifacts import save_tensors, write_parquet
    from lookahead.features.store import IMAGES, PROMPTS, TABLE

    sizes = NARROW if narrow else SDXL
    draw = torch.Generator().manual_seed(0)

    def some(count: int, *shape: int) -> Tensor:
        drawn = torch.randn(count, *shape, generator=draw)
        return drawn if narrow else drawn.bfloat16()

    row = np.arange(rows)
    person, turn = np.divmod(row, PHOTOS + STYLISED)
    photo = turn < PHOTOS
    columns = {"row": row, "own": np.zeros(rows, bool), "identity": person, "index": row, "photo": photo}
    columns["style"] = np.where(photo, "a photo", np.array(["ink", "oil", "clay"])[turn % 3])
    columns["scene"], columns["prompt"] = np.array(["snow", "beach"])[row % 2], row % 6
    for number, kind in enumerate(torch.from_numpy(photo).split(SHARD)):
        count = len(kind)
        shard = {"latents": some(count, *sizes["latents"]), "image_features": some(int(kind.sum()), *sizes["image"])}
        shard |= {"embeddings": some(count, *sizes["face"]).float(), "landmarks": some(count, 5, 2).float()}
        save_tensors(folder / IMAGES / f"{number:05d}.safetensors", shard, {})
    prompts = {"prompt_embeds": some(6, *sizes["tokens"]), "pooled": some(6, *sizes["pooled"])}
    prompts |= {"empty_prompt_embeds": some(1, *sizes["tokens"]), "empty_pooled": some(1, *sizes["pooled"])}
    save_tensors(folder / PROMPTS, prompts | {"null_image_features": some(1, *sizes["image"])}, {})
    write_parquet(folder / TABLE, pa.table(columns))


def files_of(folder: Path) -> list[Path]:
    """All files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def counter(file: str, name: str) -> float:
    """MiB of a line of /proc/self: RssAnon, memory besides pages of files, or read_bytes, what the disk has read."""
    lines = Path("/proc/self", file).read_text(encoding="utf-8").splitlines()
    number = next(int(line.split()[1]) for line in lines if line.startswith(name))
    return number / 1024 if file == "status" else number / MIB


def timed(work: Callable[[], object], times: int, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds that something takes, of the processor or by another clock: the median of several times."""
    taken = []
    for _ in range(times):
        begun = clock()
        work()
        taken.append(clock() - begun)
    return statistics.median(taken)


def cache(folder: Path, keep: bool) -> None:
    """Let the kernel read a folder's files, or ask it to keep none of them in memory."""
    for path in files_of(folder):
        with path.open("rb") as file:
            while keep and file.read(16 * MIB):
                pass
            if not keep:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(folder: Path) -> Figures:
    """What it takes to open the features and the pairs, and to read micro-batches of pairs drawn at random."""
    import torch

    from lookahead.features.store import open_features
    from lookahead.training.data import Pairs, load_pairs

    torch.set_num_threads(1)
    draw, before = torch.Generator().manual_seed(0), counter("status", "RssAnon")
    cache(folder, keep=False)
    start = counter("io", "read_bytes")
    cold, opening = timed(lambda: open_features(folder), 1, time.perf_counter), counter("io", "read_bytes") - start
    store = open_features(folder)
    pairs = Pairs(store.table, 0.0)

    def micro_batch() -> object:
        return load_pairs(store, *pairs.draw(BATCH, draw))

    start = counter("io", "read_bytes")
    from_disk, wanted = timed(micro_batch, COLD, time.perf_counter), counter("io", "read_bytes") - start
    held = counter("status", "RssAnon") - before
    cache(folder, keep=True)
    return {
        "opening, from the disk, s": cold,
        "opening, read, MiB": opening,
        "opening, from memory, s": timed(lambda: open_features(folder), TURNS),
        "pairs, s": timed(lambda: Pairs(store.table, 0.0), TURNS),
        "micro-batch, from the disk, ms": 1000 * from_disk,
        "micro-batch, read, MiB": wanted / COLD,
        "micro-batch, from memory, ms": 1000 * timed(micro_batch, WARM),
        "own memory, MiB": held,
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def figures_of(rows: int, narrow: bool) -> Figures:
    """Every figure of one count, each part measured in a child process."""
    home = KEPT.absolute() / str(rows)
    home.mkdir(parents=True)
    child = [sys.executable, "-m", "benchmarks.scale", "--home", str(home), *["--narrow"] * narrow]
    subprocess.run([*child, "--rows", str(rows)], check=True)
    size = sum(file.stat().st_size for file in files_of(home / "features")) / MIB
    subprocess.run(child, check=True)
    return {"features, MiB": size, **json.loads((home / "figures.json").read_bytes())}


def table(counts: Sequence[int], figures: Sequence[Figures]) -> str:
    """A row a figure, a column a count, and the last one's ratio to the first."""
    titles = " | ".join(f"{count:,} rows" for count in counts)
    lines = [f"| | {titles} | ratio |", f"|---|{'---:|' * (len(counts) + 1)}"]
    for name, first in figures[0].items():
        values = [each[name] for each in figures]
        shown = [f"{value:.4g}" for value in values] + [f"{values[-1] / first:.2f}" if first else "-"]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every count, print the table and clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[], metavar="N", help="how many pictures")
    parser.add_argument("--narrow", action="store_true", help="of few numbers")
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.home and options.rows:
        write(options.home / "features", options.rows[0], options.narrow)
    elif options.home:
        (options.home / "figures.json").write_text(json.dumps(read(options.home / "features")), encoding="utf-8")
    else:
        shutil.rmtree(KEPT, ignore_errors=True)  # of a run that was killed
        try:
            print(table(options.rows, [figures_of(rows, options.narrow) for rows in options.rows]))
        finally:
            shutil.rmtree(KEPT, ignore_errors=True)


if __name__ == "__main__":
    main()
