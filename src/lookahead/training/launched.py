"""A training in processes of its own, told in a file: `LAUNCHER -m lookahead.training.launched FILE`.

The launcher is `accelerate launch`, `torchrun` or Python itself. The training ends with whoever holds the lock that the
file names.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

import torch
from pydantic import ValidationError

from lookahead.config import Checkpoints, Section, Train
from lookahead.errors import InputError
from lookahead.training.fit import assist, train
from lookahead.world.processes import claim_gpu, launched


class Order(Section):
    """What to train from what, and where; `threads` is a process's share of its machine's cores, if nothing else says.

    Whoever ordered it holds `lock`, as long as it lives, on the machine `host`.
    """

    checkpoints: Checkpoints
    settings: Train
    features: str
    work: str
    threads: int
    lock: str
    host: str


def read_order(path: Path) -> Order:
    """The order in a file.

    Raises:
        InputError: there is none.
    """
    try:
        return Order.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        raise InputError(f"{path} orders no training ({error}): a search writes such a file for each trial") from None


def is_free(lock: Path) -> bool:
    """Whether nobody holds a lock file, or it is gone."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except FileNotFoundError:
        return True
    return True


def _end_with(lock: Path) -> None:
    """End this process with whoever ordered it, which may be killed: its trial then belongs to another worker."""
    while not is_free(lock):
        time.sleep(1.0)
    os._exit(1)


def carry_out(order: Order) -> None:
    """Train as the first process of the launch, or take another one's share.

    Raises:
        InputError: as `training.fit.train`.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", order.threads)))
    if socket.gethostname() == order.host:  # elsewhere a process ends when the first one no longer answers
        threading.Thread(target=_end_with, args=(Path(order.lock),), daemon=True).start()
    if launched().first:
        train(order.checkpoints, order.settings, Path(order.features), Path(order.work), lambda _row, _step: None)
    else:
        assist()


def main() -> None:
    """Carry out the order on the command line; an error is one line on stderr and exit code 1.

    The line begins anew, as the progress bar's may be open.
    """
    claim_gpu(launched())
    try:
        carry_out(read_order(Path(sys.argv[1])))
    except InputError as error:
        sys.exit(f"\nerror: {error}")
    except (MemoryError, RuntimeError) as error:  # torch's "out of memory" is a RuntimeError
        traceback.print_exc()
        sys.exit(f"\nerror: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
