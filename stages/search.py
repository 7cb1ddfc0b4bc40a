"""The search: trials, confirmation, results; resumes. `python stages/search.py [--world W] [--storage ADDRESS]`."""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from lookahead.artifacts import STATE, publish, workspace, write_json
from lookahead.config import read_params
from lookahead.errors import InputError
from lookahead.locks import alone
from lookahead.search.run import Task, run_search
from lookahead.stage import RUNS, cores
from lookahead.tracking import open_study_recorder


def search(name: str | None, address: str | None, workers: int | None) -> None:
    """Run what is missing, here and beside other workers, and publish `results/<world>/search`."""
    params = read_params()
    name = name or params.world
    if name not in params.studies.search or name not in params.worlds:
        raise InputError(f"there is no search of {name!r}: studies.search has {sorted(params.studies.search)}")
    features, state = RUNS / name / "features", STATE / "search"
    task = Task(name, params.worlds[name], params.studies.search[name], features, state, address, tell)
    work = workspace(f"{name}/search", str(os.getpid()))
    workers = workers or task.search.workers
    threads = int(os.environ.get("OMP_NUM_THREADS", max(1, cores() // workers)))
    torch.set_num_threads(threads)
    command = [sys.executable, __file__, "--world", name, "--workers", "1"]
    command += ["--storage", address] if address else []
    with beside(workers - 1, command, threads):
        lineage = run_search(task, partial(open_study_recorder, params, name), work)
    with alone(state / "publish.lock"):
        publish(work, Path("results") / name / "search")
        write_json(RUNS / name / "search.run.json", lineage)


@contextmanager
def beside(count: int, command: list[str], threads: int) -> Iterator[None]:
    """Further workers on this machine, which end with this one; what one of them leaves undone, another does."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    started = [subprocess.Popen(command, env=environment) for _ in range(count)]
    try:
        yield
        for worker in started:
            worker.wait()
    finally:
        for worker in started:
            worker.terminate()


def tell(message: str) -> None:
    """Say something to whoever started this."""
    sys.stderr.write(f"{message}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", help="a world of params.yaml (default: its `world`)")
    parser.add_argument("--storage", help="postgresql+psycopg://..., shared by any number of workers")
    parser.add_argument("--workers", type=int, help="processes here (default: studies.search.<world>.workers)")
    options = parser.parse_args()
    try:
        search(options.world, options.storage, options.workers)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command continues")
