"""What grows with the number of pictures, drawing them aside: opening the features, reading pairs, and DVC.

    .venv/bin/python benchmarks/scale.py --rows 1000 20000             # rows as large as the miniature's
    .venv/bin/python benchmarks/scale.py --rows 20000 500000 --narrow  # of few numbers: what their count alone costs
    .venv/bin/python benchmarks/scale.py --rows 1000 4000 --sdxl       # as large as SDXL's

Each count has a folder of random features below `state/benchmarks/scale/` and, of the miniature's, one of shards of
random pictures (benchmarks/stand_in.py); they are removed at the end. A child process opens the features and reads
micro-batches, first from files that the kernel has been asked to forget, by the clock on the wall, then from those that
it holds, in processor time. `own memory` is what this adds to what the libraries take; the peak counts all. DVC,
counted in processor time, has its own repository, links as it does by default, pushes to a folder of the same disk. The
last column is the ratio of the last count to the first: times depend on the machine and on what else it does, ratios
less. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from chain import measure  # type: ignore[import-not-found]  # benchmarks/chain.py: a script's own folder is on the path

SCRIPT = Path(__file__)
KEPT = Path("state", "benchmarks", "scale")
COLD, WARM, TURNS = 30, 200, 5  # micro-batches; whatever else is measured several times
MIB = 2**20
Figures = dict[str, float]


def files_of(folder: Path) -> list[Path]:
    """All files below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def own_memory() -> float:
    """MiB that this process holds besides pages of files."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


def mib_read() -> float:
    """MiB that the disk has read for this process."""
    lines = Path("/proc/self/io").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / MIB for line in lines if line.startswith("read_bytes"))


def timed(work: Callable[[], object], times: int, clock: Callable[[], float] = time.process_time) -> float:
    """Seconds that something takes, of the processor or by another clock: the median of several times."""
    taken = []
    for _ in range(times):
        begun = clock()
        work()
        taken.append(clock() - begun)
    return statistics.median(taken)


def forget(folder: Path) -> None:
    """Ask the kernel to keep nothing of a folder's files in memory."""
    for path in files_of(folder):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def recall(folder: Path) -> None:
    """Have the kernel read a folder's files."""
    for path in files_of(folder):
        with path.open("rb") as file:
            while file.read(16 * MIB):
                pass


def read(home: Path, kind: str) -> Figures:
    """What it takes to open the features and the pairs, and to read micro-batches of pairs drawn at random."""
    import torch
    from stand_in import world_of  # type: ignore[import-not-found]  # as chain; here, for the parent has to stay small

    from lookahead.features.store import open_features
    from lookahead.training.data import Pairs, load_pairs

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    settings, draw = world_of(kind).train, torch.Generator().manual_seed(0)
    folder, before = home / "features", own_memory()
    forget(folder)
    start = mib_read()
    cold, opening = timed(lambda: open_features(folder), 1, time.perf_counter), mib_read() - start
    store = open_features(folder)
    pairs = Pairs(store.table, settings.own_photos)

    def micro_batch() -> object:
        return load_pairs(store, *pairs.draw(settings.batch_size, draw))

    start = mib_read()
    from_disk, wanted = timed(micro_batch, COLD, time.perf_counter), mib_read() - start
    held = own_memory() - before
    recall(folder)
    return {
        "opening, from the disk, s": cold,
        "opening, read, MiB": opening,
        "opening, from memory, s": timed(lambda: open_features(folder), TURNS),
        "pairs, s": timed(lambda: Pairs(store.table, settings.own_photos), TURNS),
        "micro-batch, from the disk, ms": 1000 * from_disk,
        "micro-batch, read, MiB": wanted / COLD,
        "micro-batch, from memory, ms": 1000 * timed(micro_batch, WARM),
        "centroids, s": timed(lambda: store.centroids(torch.tensor([0])), 1),
        "own memory, MiB": held,
    }


def versioned(home: Path, name: str) -> Figures:
    """What DVC's commands take on a folder of a repository made for it."""
    folder = home / name

    def dvc(*words: str) -> float:
        return measure("dvc", [sys.executable, "-m", "dvc", "--cd", str(home), *words, "--quiet"]).processor

    taken = {"add": dvc("add", name), "status": dvc("status", f"{name}.dvc"), "push": dvc("push", f"{name}.dvc")}
    shutil.rmtree(folder)
    taken["checkout"] = dvc("checkout", f"{name}.dvc")
    last = max(files_of(folder), key=lambda path: path.stat().st_size)
    with shutil.copyfile(last, last.with_stem("one-more")).open("ab") as file:
        file.write(b"more")
    taken |= {"add, one shard more": dvc("add", name), "push, one shard more": dvc("push", f"{name}.dvc")}
    return {f"DVC, {name}: {command}, s": seconds for command, seconds in taken.items()}


def figures_of(rows: int, kind: str) -> Figures:
    """Every figure of one count, each part measured in a child process."""
    home = KEPT.absolute() / str(rows)
    child = [sys.executable, str(SCRIPT), "--home", str(home), *([] if kind == "world" else [f"--{kind}"])]
    home.mkdir(parents=True)
    os.environ |= {"DVC_SITE_CACHE_DIR": str(home / "site"), "DVC_NO_ANALYTICS": "true"}
    measure("write", [*child, "--rows", str(rows)])
    folders = [path for path in (home / "features", home / "pictures") if path.exists()]
    sizes = {f"{path.name}, MiB": sum(file.stat().st_size for file in files_of(path)) / MIB for path in folders}
    peak = measure("read", child).memory
    figures = sizes | json.loads((home / "figures.json").read_bytes()) | {"peak memory, MiB": peak}
    for words in (["init", "--no-scm", "--quiet"], ["remote", "add", "--default", "disk", "remote", "--quiet"]):
        measure("dvc", [sys.executable, "-m", "dvc", "--cd", str(home), *words])
    for path in folders:
        figures |= versioned(home, path.name)
    return figures


def table(counts: Sequence[int], figures: Sequence[Figures]) -> str:
    """A row a figure, a column a count, and the last one's ratio to the first."""
    titles = " | ".join(f"{count:,} rows" for count in counts)
    lines = [f"| | {titles} | ratio |", f"|---|{'---:|' * (len(counts) + 1)}"]
    for name, first in figures[0].items():
        values = [each[name] for each in figures]
        told = [f"{value:.4g}" for value in values] + [f"{values[-1] / first:.2f}" if first else "-"]
        lines.append(f"| {name} | {' | '.join(told)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure every count, print the table and clean up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[], metavar="N", help="how many pictures")
    parser.add_argument("--narrow", action="store_true", help="of few numbers")
    parser.add_argument("--sdxl", action="store_true", help="as large as SDXL's")
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    kind = "narrow" if options.narrow else "sdxl" if options.sdxl else "world"
    if options.home and options.rows:
        from stand_in import write

        write(options.home, options.rows[0], kind)
    elif options.home:
        (options.home / "figures.json").write_text(json.dumps(read(options.home, kind)), encoding="utf-8")
    else:
        shutil.rmtree(KEPT, ignore_errors=True)  # of a run that was killed
        try:
            print(table(options.rows, [figures_of(rows, kind) for rows in options.rows]))
        finally:
            shutil.rmtree(KEPT, ignore_errors=True)


if __name__ == "__main__":
    main()
