"""Frozen weights shared out over the processes of a launch, for GPUs that are too small for all of them.

Each process keeps an equal part of every block's weights. Where a block is used, forwards or backwards, all processes
put its weights together, and let those of the block before go. torch's own `fully_shard` deals out a module's weights,
not two modules' same weights, so that the U-Net and the KV-encoder would each keep a part of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from lookahead.world.processes import Processes, gather_parts

BLOCKS = (BasicTransformerBlock, ResnetBlock2D)
"""What is used as a whole."""
ALIGNED = 16  # bytes: where a weight of any number format may begin


class Shard:
    """The frozen weights of one block, of which this process keeps a part."""

    def __init__(self, weights: Sequence[nn.Parameter], processes: Processes) -> None:
        """Keep the part; the weights themselves are empty until `gather`."""
        sizes = [-(-weight.nbytes // ALIGNED) * ALIGNED for weight in weights]
        part = -(-sum(sizes) // processes.count)  # rounded up, so that all are equal
        self.whole = torch.zeros(part * processes.count, dtype=torch.uint8, device=weights[0].device)
        for weight, place in zip(weights, self.whole[: sum(sizes)].split(sizes), strict=True):
            numbers = place.view(weight.dtype)
            there = numbers.as_strided(weight.shape, weight.stride(), numbers.storage_offset())  # also channels_last
            weight.data = there.copy_(weight.detach())
        self.part = self.whole[processes.rank * part :][:part].clone()
        self.processes, self.bytes = processes, self.whole.untyped_storage().nbytes()
        self.release()

    def gather(self) -> None:
        """Fill the weights from the parts of all processes."""
        self.whole.untyped_storage().resize_(self.bytes)
        gather_parts(self.whole, self.part, self.processes)

    def release(self) -> None:
        """Give the weights' memory back."""
        self.whole.untyped_storage().resize_(0)

    def holds(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of the weights, or a view of one; to be asked while they are there."""
        return tensor.untyped_storage().data_ptr() == self.whole.untyped_storage().data_ptr()


class Shards:
    """All blocks' weights, of which one block's are there at a time: those of the last that was used."""

    def __init__(self) -> None:
        """None is shared out yet."""
        self.of_blocks: dict[str, Shard] = {}
        self._there: Shard | None = None

    def use(self, shard: Shard) -> None:
        """Have a block's weights there, instead of those that were."""
        if self._there is shard:
            return
        if self._there is not None:
            self._there.release()
        shard.gather()
        self._there = shard

    def _pack(self, tensor: Tensor) -> tuple[Tensor, Shard | None]:
        mine = self._there is not None and self._there.holds(tensor)
        return tensor.detach(), self._there if mine else None

    def _unpack(self, kept: tuple[Tensor, Shard | None]) -> Tensor:
        tensor, shard = kept
        if shard is not None:
            self.use(shard)
        return tensor

    @contextmanager
    def backward(self) -> Iterator[None]:
        """What runs in here can run backwards, where autograd asks for a block's weights when it takes them up.

        A checkpointed block gets them as forwards, because it runs again.
        """
        if not self.of_blocks:
            yield
            return
        with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
            yield


def share_out(unets: Sequence[nn.Module], processes: Processes) -> Shards:
    """Share out the frozen weights of U-Nets, block by block; parameters keep their names, and the trained ones stay.

    Args:
        unets: the first has all frozen weights; of the others, a block's are among those of its namesake there.
        processes: of this launch; from here on all of them use the same blocks in the same order.
    """
    shards = Shards()
    for unet in unets:
        for name, block in unet.named_modules():
            if not isinstance(block, BLOCKS):
                continue
            if name not in shards.of_blocks:
                frozen = [weight for weight in block.parameters() if not weight.requires_grad]
                shards.of_blocks[name] = Shard(frozen, processes)
            block.register_forward_pre_hook(lambda *_, shard=shards.of_blocks[name]: shards.use(shard))
    return shards
