"""Several processes of one `accelerate launch` (or torchrun): who this one is, and a message from the first to all."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist


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


_VARIABLES = (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))


def claim_gpu(processes: Processes) -> None:
    """Let this process see one GPU only, so that torch and onnxruntime mean the same one; before CUDA is used."""
    if processes.count == 1:
        return
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    visible = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible[processes.local % len(visible)]


def broadcast(text: str, processes: Processes) -> str:
    """The first process's text in all of them; the others' own is not looked at, and they wait for it."""
    if processes.count == 1:
        return text
    dist.init_process_group("gloo")
    data = torch.tensor(list(text.encode()), dtype=torch.uint8)
    size = torch.tensor([len(data)])
    dist.broadcast(size, 0)
    received = data if processes.first else torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(received, 0)
    dist.destroy_process_group()
    return bytes(received.tolist()).decode()
