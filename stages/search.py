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


def search(name: str | None, address: str | None, worker: int) -> None:
    """Run what is missing, with other workers, and publish `results/<world>/search`."""
    params = read_params()
    world = params.of(name)
    if world.name not in params.studies.search:
        raise InputError(f"there is no search of {world.name!r}: studies.search has {sorted(params.studies.search)}")
    settings, features, state = params.studies.search[world.name], RUNS / world.name / "features", STATE / "search"
    threads = int(os.environ.get("OMP_NUM_THREADS", max(1, cores() // settings.workers)))
    import torch  # after lookahead, which says how its threads wait

    torch.set_num_threads(threads)
    key = f"{worker or ''}" if address is None else f"{socket.gethostname()} {os.getpid()}"
    task = Task(world, world.evaluation(), settings, features, state, address, key)

    def record(study: str) -> Recorder:
        return open_study(params, Origin("search", world.name, {}, (features,), study))

    command = [sys.executable, __file__, "--world", world.name, *(["--storage", address] if address else [])]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    numbers = () if worker else range(1, settings.workers)
    others = [subprocess.Popen([*command, "--worker", str(number)], env=environment) for number in numbers]
    try:
        out = None if worker else workspace(f"{world.name}/search", str(os.getpid()))
        lineage = run_search(task, record, lambda line: sys.stderr.write(f"{line}\n"), out)
        for other in others:
            other.wait()
    finally:
        for other in others:
            other.terminate()
    if out is not None:
        with FileLock(state / "publish.lock"):
            publish(out, Path("results") / world.name / "search")
            write_json(RUNS / world.name / "search.run.json", lineage)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", help="a world of params.yaml (default: its `world`)")
    parser.add_argument("--storage", help="postgresql+psycopg://..., shared by any number of workers")
    parser.add_argument("--worker", type=int, default=0, help=argparse.SUPPRESS)  # one that another one started
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the trial is queued again
    try:
        search(options.world, options.storage, options.worker)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command continues")
