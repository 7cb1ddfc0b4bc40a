"""What the method costs in a training step, and what its shortcuts save: ratios, measured in turns in one run.

    .venv/bin/python benchmarks/method.py                    # the world of params.yaml, 12 turns
    .venv/bin/python benchmarks/method.py --turns 30 --json figures.json

The dataset must have been encoded (`make repro`, or `lookahead features`). Each comparison takes turns between its
sides and gives the median of the ratios of neighbours, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

from lookahead.config import Checkpoints, Train, read_params
from lookahead.models.fast_child import child_at
from lookahead.models.kv_encoder import new_kv_encoder
from lookahead.stage import RUNS, cores
from lookahead.training.loop import backward
from lookahead.training.networks import Training, open_training
from lookahead.world import FAST_CHILD, attach_fast_child, device, open_pipeline

Step = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """How much more one side costs than the other, in `unit`: 1 is equal."""

    compared: str
    unit: str
    ratio: float


def seconds(step: Step) -> float:
    """Wall-clock time of a step, the device's queue included."""
    _wait()
    start = time.perf_counter()
    step()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


def ratio(first: Step, second: Step, turns: int) -> float:
    """The median over turns of (time of `first`) / (time of `second`), after one turn that is not counted."""
    taken = [(seconds(first), seconds(second)) for _ in range(turns + 1)][1:]
    return statistics.median(one / other for one, other in taken)


def variant(settings: Train, weight: float | None, kv: bool, share: bool) -> Train:
    """The settings with the lookahead loss on or off, the KV-encoder on or off, timesteps shared or not."""
    lookahead = settings.lookahead.model_copy(update={} if weight is None else {"weight": weight})
    encoder = settings.kv.model_copy(update={"enabled": kv})
    return settings.model_copy(update={"lookahead": lookahead, "kv": encoder, "share_timesteps": share})


def stepper(checkpoints: Checkpoints, settings: Train, features: Path) -> Step:
    """One micro-batch's gradients, a new one at each call."""
    training: Training = open_training(checkpoints, settings, features)
    indices = iter(range(10**9))

    def step() -> None:
        training.optimizer.zero_grad(set_to_none=True)
        backward(training, next(indices))

    return step


def steps(checkpoints: Checkpoints, settings: Train, features: Path, turns: int) -> list[Ratio]:
    """Step times against the noise loss alone, and one KV pass against two."""

    def made(weight: float | None, kv: bool, share: bool) -> Step:
        return stepper(checkpoints, variant(settings, weight, kv, share), features)

    noise, lookahead, with_kv = made(0.0, False, False), made(None, False, False), made(None, True, False)
    return [
        Ratio("step with the lookahead loss : noise loss alone", "time", ratio(lookahead, noise, turns)),
        Ratio("step with lookahead loss and KV-encoder : noise loss alone", "time", ratio(with_kv, noise, turns)),
        Ratio("one KV pass for both losses : one for each", "time", ratio(made(None, True, True), with_kv, turns)),
    ]


def scale(checkpoints: Checkpoints, settings: Train, features: Path, turns: int) -> list[Ratio]:
    """Setting alpha_LoRA by a scale, against loading and fusing the LoRA anew as the official code does, and a step."""
    training = open_training(checkpoints, variant(settings, None, False, False), features)
    pipe = open_pipeline(checkpoints)

    def drawn() -> None:
        with child_at(training.networks.child, FAST_CHILD, 0.5):
            pass

    def fused() -> None:
        attach_fast_child(pipe, checkpoints)
        pipe.fuse_lora(lora_scale=0.5, adapter_names=[FAST_CHILD])
        pipe.unfuse_lora()
        pipe.unload_lora_weights()

    step = stepper(checkpoints, variant(settings, None, False, False), features)
    return [
        Ratio("reloading and fusing the LoRA : setting its scale", "time", ratio(fused, drawn, turns)),
        Ratio("setting the scale : a step", "time", ratio(drawn, step, turns)),
    ]


def held(*unets: torch.nn.Module) -> int:
    """Bytes of all tensors of these networks, each storage once."""
    tensors = (tensor for unet in unets for tensor in (*unet.parameters(), *unet.buffers()))
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def memory(checkpoints: Checkpoints, settings: Train) -> list[Ratio]:
    """Denoiser, fast child and KV-encoder over separate copies of the weights, against our one copy."""
    pipe = open_pipeline(checkpoints)
    base: UNet2DConditionModel = pipe.unet
    one_copy = held(base)
    encoder = new_kv_encoder(base, settings.kv.rank, settings.kv.shared_rank, seed=0)
    attach_fast_child(pipe, checkpoints)
    ours = held(base, encoder.unet, encoder.shared)
    # the official code: a denoiser, a copy of it with the LoRA fused, a KV-encoder, and the denoiser's frozen twin
    return [Ratio("four U-Nets (official code) : ours", "bytes of weights", (4 * one_copy + ours - one_copy) / ours)]


def main() -> None:
    """Print the ratios as a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=12, help="how often each comparison is repeated")
    parser.add_argument("--json", type=Path, help="also write the ratios to this file")
    options = parser.parse_args()
    torch.set_num_threads(cores())
    params = read_params()
    checkpoints, settings = params.active.checkpoints, params.active.train
    features = RUNS / params.world / "features"
    found = memory(checkpoints, settings)
    found += scale(checkpoints, settings, features, options.turns)
    found += steps(checkpoints, settings, features, options.turns)
    print("| compared | in | ratio |\n|---|---|---:|")
    for row in found:
        print(f"| {row.compared} | {row.unit} | {row.ratio:.3g} |")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
