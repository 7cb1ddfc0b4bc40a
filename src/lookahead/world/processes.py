"""Several processes of one `accelerate launch` (or torchrun): who this one is, and what they tell each other."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from lookahead.errors import InputError


@dataclass(frozen=True)
class Processes:
    """This process's number among all, and on its machine, and how many there are; alone it is 0, 0 of 1."""

    rank: int
    local: int
    count: int

    @property
    def first(self) -> bool:
        """Whether this process is the one that judges, describes and publishes."""
        return self.rank == 0

    def mine(self, number: int) -> bool:
        """Whether this process does the part so numbered."""
        return number % self.count == self.rank


def launched() -> Processes:
    """What the launcher says in the environment."""
    rank, local, count = (int(os.environ.get(name, unset)) for name, unset in _VARIABLES)
    return Processes(rank, local, count)


PATIENCE = 1.0  # seconds between looks at what other processes write
_VARIABLES = (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))


def claim_gpu(processes: Processes) -> None:
    """Let this process see one GPU only, so that torch and onnxruntime mean the same one; before CUDA is used."""
    if processes.count == 1:
        return
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[processes.local % len(visible)]


def _join() -> None:
    """Meet the other processes, once for all that follows."""
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(dist.destroy_process_group)


@contextmanager
def _meeting() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise InputError(
            f"another process of this launch ended ({str(error)[:120]}); its own message tells why, and the same "
            "command continues"
        ) from None


def broadcast(text: str, processes: Processes) -> str:
    """The first process's text in all of them; the others' own is not looked at, and they wait for it.

    Raises:
        InputError: another process ended.
    """
    if processes.count == 1:
        return text
    with _meeting():
        _join()
        data = torch.tensor(list(text.encode()), dtype=torch.uint8)
        size = torch.tensor([len(data)])
        dist.broadcast(size, 0)
        received = data if processes.first else torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(received, 0)
        return bytes(received.tolist()).decode()


def add_up(tensors: Sequence[Tensor], processes: Processes) -> None:
    """Replace tensors, all of one format on one device, by their sums over all processes: one all-reduce.

    Raises:
        InputError: another process ended.
    """
    if processes.count == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    with _meeting():
        _join()
        dist.all_reduce(flat)
    sizes = [tensor.numel() for tensor in tensors]
    for tensor, total in zip(tensors, flat.split(sizes), strict=True):
        tensor.copy_(total.view_as(tensor))


def await_files(paths: Iterable[Path]) -> None:
    """Wait until the other processes of this launch have written these; if one of them dies, the launcher ends all."""
    for path in paths:
        while not path.is_file():
            time.sleep(PATIENCE)


def gather_parts(whole: Tensor, part: Tensor, processes: Processes) -> None:
    """Fill bytes (N P,) with the parts (P,) of N processes, in the order of their numbers.

    Raises:
        InputError: another process ended.
    """
    if processes.count == 1:
        whole.copy_(part)
        return
    with _meeting():
        _join()
        dist.all_gather_into_tensor(whole, part)


def gather(rows: Tensor, processes: Processes) -> Tensor:
    """What every process holds, (N, ...) of (...), on the CPU, in the order of their numbers.

    Raises:
        InputError: another process ended.
    """
    if processes.count == 1:
        return rows[None]
    parts = [torch.empty_like(rows) for _ in range(processes.count)]
    with _meeting():
        _join()
        dist.all_gather(parts, rows)
    return torch.stack(parts)
