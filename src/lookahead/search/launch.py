"""A trial's training in processes of its own: started, watched, and ended with the trial."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from uuid import uuid4

import psutil
import torch

from lookahead.artifacts import Log, write_json, writing
from lookahead.config import Checkpoints, Train
from lookahead.errors import InputError
from lookahead.locks import alone
from lookahead.training import launched
from lookahead.training.checkpoint import checkpoints as checkpoints_in
from lookahead.training.fit import resume_folder

Look = Callable[[Path, int], None]  # sees a checkpoint and its step, and may raise
GRACE = 10.0  # seconds from asking a launch to end to killing what is left of it
_OTHERS = "another process of this launch ended"  # what the others say when one fails (world/processes.py)


def train_launched(
    launch: Sequence[str], checkpoints: Checkpoints, settings: Train, features: Path, work: Path, log: Log, look: Look
) -> None:
    """Train into `work` as `training.fit.train` does, by a command that begins with the words of `launch`.

    `look` sees every checkpoint before the last step, also those of an earlier try. The curves are logged at the end.

    Raises:
        InputError: there is no such command, or it failed: the reason that it gave.
    """
    folder = work.parent
    lock, order, said = folder / f"{uuid4().hex}.lock", folder / "launched.json", folder / "launched.log"
    told = launched.Order(
        checkpoints=checkpoints,
        settings=settings,
        features=str(features),
        work=str(work),
        threads=torch.get_num_threads(),
        lock=str(lock.resolve()),
        host=socket.gethostname(),
    )
    write_json(order, told.model_dump(mode="json"))
    look_on = partial(_look_on, resume_folder(work), settings.steps, set(), look)
    with alone(lock), _running([*launch, "-m", launched.__name__, str(order)], said) as child:
        _watch(child, said, look_on)
    if child.returncode:
        raise InputError(reason_in(said.read_text(encoding="utf-8", errors="replace"), child.returncode))
    look_on()
    log_curves(work / "curves.csv", log)


@contextmanager
def _running(command: Sequence[str], said: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command whose stderr goes to a file; it ends with the block."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    program = shutil.which(command[0], path=places)
    if program is None:
        raise InputError(
            f"`launch` begins with {command[0]!r}, which is no command here: such as `accelerate`, or a path"
        )
    with writing(said):
        file = said.open("wb")
    with file:  # a session of its own: Ctrl-C comes to this process, which then ends the launch in order
        child = subprocess.Popen([program, *command[1:]], stderr=file, start_new_session=True)
    try:
        yield child
    finally:
        _end(child)


def _watch(child: subprocess.Popen[bytes], said: Path, look_on: Callable[[], None]) -> None:
    """Hand on what a launch says, and look on every second, until it ends."""
    with said.open(encoding="utf-8", errors="replace", newline="") as reader:
        while child.poll() is None:
            sys.stderr.write(reader.read())
            look_on()
            with suppress(subprocess.TimeoutExpired):
                child.wait(1.0)
        sys.stderr.write(reader.read())


def _look_on(folder: Path, steps: int, seen: set[int], look: Look) -> None:
    for path in checkpoints_in(folder):
        step = int(path.stem.rpartition("_")[2])
        if step < steps and step not in seen:
            seen.add(step)
            look(path, step)


def _end(child: subprocess.Popen[bytes]) -> None:
    """End a launch with all that it started: launchers give their processes groups of their own."""
    if child.poll() is not None:
        return
    family = psutil.Process(child.pid).children(recursive=True)
    os.killpg(child.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(GRACE)
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(family, timeout=1.0)
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def reason_in(said: str, code: int) -> str:
    """Why a launch failed: the last error that it names, of the process that failed first, or its last words."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", said) if any(map(str.isalnum, line))]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    own = [error for error in errors if not error.startswith(_OTHERS)]
    if errors:
        return (own or errors)[-1]
    return f"the launch ended with exit code {code}: {lines[-1] if lines else 'it said nothing'}"


def log_curves(path: Path, log: Log) -> None:
    """Log the rows of a training's `curves.csv`."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            step = int(row.pop("step"))
            log({name: float(value) for name, value in row.items() if value}, step)
