"""Frozen weights shared out: a process holds its part and one block, and trains as if it held them all."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from benchmarks.sdxl import UNET
from lookahead.config import Checkpoints, Train
from lookahead.errors import InputError
from lookahead.training.losses import micro_step
from lookahead.training.samples import draw_samples
from lookahead.training.setup import Training, open_training
from lookahead.training.sharding import BLOCKS, Shard
from lookahead.training.shares import check_shares
from lookahead.world.processes import Processes
from tests.launcher import launch
from tests.training.conftest import changed
from tests.training.test_processes import NEVER, command

ALONE = Processes(0, 0, 1)
CASES = {
    "lookahead": {},
    "kv": {"kv": {"enabled": True}},
    "one KV pass": {"kv": {"enabled": True}, "share_timesteps": True},
    "checkpointing": {"kv": {"enabled": True}, "gradient_checkpointing": True},
    "channels_last": {"channels_last": True},
}


def gradients(training: Training) -> dict[str, torch.Tensor | None]:
    with training.shards.backward():
        for index in range(2):
            micro_step(training, index, 0.0)
    return {name: weight.grad for name, weight in training.weights.items()}


def held(*unets: torch.nn.Module, inside: bool) -> int:
    """Bytes of the frozen weights that are in memory, of those in blocks or of the others."""
    blocks = [module for unet in unets for module in unet.modules() if isinstance(module, BLOCKS)]
    within = {id(weight) for block in blocks for weight in block.parameters()}
    frozen = [p for unet in unets for p in unet.parameters() if not p.requires_grad and (id(p) in within) == inside]
    storages = {p.untyped_storage()._cdata: p.untyped_storage().nbytes() for p in frozen}
    return sum(storages.values())


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_the_same_bits(tiny_world: Checkpoints, settings: Train, features: Path, case: str) -> None:
    settings = changed(settings, CASES[case])
    plain = gradients(open_training(tiny_world, settings, features))
    shared = gradients(open_training(tiny_world, changed(settings, {"shard_weights": True}), features))
    assert plain.keys() == shared.keys()
    for name, gradient in plain.items():
        assert torch.equal(gradient, shared[name]), name  # type: ignore[arg-type]


def test_one_blocks_weights_are_there_at_a_time(tiny_world: Checkpoints, with_kv: Train, features: Path) -> None:
    training = open_training(tiny_world, changed(with_kv, {"shard_weights": True}), features)
    kv, blocks = training.networks.kv, list(training.shards.of_blocks.values())
    assert kv is not None and len(blocks) > 5 and held(training.networks.unet, kv.unet, inside=True) == 0
    gradients(training)
    (there,) = [block.bytes for block in blocks if block.whole.untyped_storage().nbytes()]
    assert held(training.networks.unet, kv.unet, inside=True) == there < 0.5 * sum(block.bytes for block in blocks)
    assert held(training.networks.unet, kv.unet, inside=False) > 0


def test_without_its_weights_a_block_cannot_run_backwards(
    tiny_world: Checkpoints, settings: Train, features: Path
) -> None:
    """So that the equal gradients above are not those of weights that were never let go."""
    training = open_training(tiny_world, changed(settings, {"shard_weights": True}), features)
    with pytest.raises(RuntimeError):
        micro_step(training, 0, 0.0)  # outside `backward()`


def test_a_process_keeps_an_equal_part() -> None:
    """Of weights in two number formats, one of them in another memory format."""
    weight, bias = torch.randn(3, 5, 1, 1, dtype=torch.bfloat16), torch.randn(3)
    parts = []
    for rank in range(3):
        conv = torch.nn.Conv2d(5, 3, 1).requires_grad_(False)
        conv.weight.data, conv.bias.data = weight.to(memory_format=torch.channels_last), bias.clone()
        parts.append(Shard(list(conv.parameters()), Processes(rank, rank, 3)).part)
    assert [len(part) for part in parts] == [16] * 3  # bytes: 30 of the weight, 12 of the bias, each rounded up
    together = torch.cat(parts)
    assert torch.equal(together[:30].view(torch.bfloat16), weight.flatten())
    assert torch.equal(together[32:44].view(torch.float32), bias)


def test_of_sdxl_nearly_all_weights_are_shared_out() -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNET)
    sizes = [sum(p.numel() for p in block.parameters()) for block in unet.modules() if isinstance(block, BLOCKS)]
    whole = sum(p.numel() for p in unet.parameters())
    assert sum(sizes) > 0.97 * whole and max(sizes) < 0.02 * whole


def test_samples_are_drawn(tiny_world: Checkpoints, with_kv: Train, features: Path) -> None:
    plain = draw_samples(open_training(tiny_world, with_kv, features))
    shared = draw_samples(open_training(tiny_world, changed(with_kv, {"shard_weights": True}), features))
    assert plain.tobytes() == shared.tobytes()


def test_one_process_alone_is_refused(settings: Train) -> None:
    shared = changed(settings, {"shard_weights": True})
    check_shares(shared, Processes(0, 0, 2))
    with pytest.raises(InputError, match=r"shard_weights is true, but there is one process.*--num_processes 2"):
        check_shares(shared, ALONE)


@pytest.mark.slow
def test_two_processes_train_the_same_bytes_as_with_all_weights(
    tiny_world: Checkpoints, with_kv: Train, features: Path, tmp_path: Path
) -> None:
    for name, on in (("whole", False), ("shared", True)):
        settings = changed(with_kv, {"shard_weights": on})
        launch(*command(tiny_world, settings, features, tmp_path / name, NEVER))
    both = [tmp_path / "whole", tmp_path / "shared"]
    written = [sorted(path.relative_to(work) for path in work.rglob("*.*")) for work in both]
    assert written[0] == written[1] and len(written[0]) > 4
    for path in written[0]:
        assert (both[0] / path).read_bytes() == (both[1] / path).read_bytes(), path
