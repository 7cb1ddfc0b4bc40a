"""The search: trials, confirmation, results; resumes. `python stages/search.py [--world W] [--storage ADDRESS]`."""

import argparse
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from lookahead.artifacts import STATE, publish, workspace, write_json
from lookahead.config import read_params
from lookahead.errors import InputError
from lookahead.search.objective import Task
from lookahead.search.run import run_search
from lookahead.stage import RUNS, cores
from lookahead.tracking import Origin, Recorder, open_study


def search(name: str | None, address: str | None, workers: int | None, worker: int) -> None:
    """Run what is missing, with other workers, and publish `results/<world>/search`."""
    params = read_params()
    name = name or params.world
    if name not in params.studies.search or name not in params.worlds:
        raise InputError(f"there is no search of {name!r}: studies.search has {sorted(params.studies.search)}")
    settings, features, state = params.studies.search[name], RUNS / name / "features", STATE / "search"
    workers = workers or settings.workers
    threads = int(os.environ.get("OMP_NUM_THREADS", max(1, cores() // workers)))
    import torch  # after lookahead, which says how its threads wait

    torch.set_num_threads(threads)
    key = f"{worker or ''}" if address is None else f"{socket.gethostname()} {os.getpid()}"
    world = params.worlds[name]
    task = Task(name, world, world.evaluation(), settings, features, state, address, key)

    def record(study: str) -> Recorder:
        return open_study(params, Origin("search", name, {}, (features,), study))

    command = [sys.executable, __file__, "--world", name, *(["--storage", address] if address else []), "--worker"]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    started = 0 if worker else workers - 1
    others = [subprocess.Popen([*command, str(one)], env=environment) for one in range(1, started + 1)]
    try:
        out = None if worker else workspace(f"{name}/search", str(os.getpid()))
        lineage = run_search(task, record, tell, out)
        for other in others:
            other.wait()
    finally:
        for other in others:
            other.terminate()
    if out is not None:
        with FileLock(state / "publish.lock"):
            publish(out, Path("results") / name / "search")
            write_json(RUNS / name / "search.run.json", lineage)


def tell(message: str) -> None:
    """Say something to whoever started this."""
    sys.stderr.write(f"{message}\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", help="a world of params.yaml (default: its `world`)")
    parser.add_argument("--storage", help="postgresql+psycopg://..., shared by any number of workers")
    parser.add_argument("--workers", type=int, help="processes here (default: `workers` of the world's search)")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)  # one of those
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the trial is queued again
    try:
        search(options.world, options.storage, options.workers, options.worker)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command continues")
