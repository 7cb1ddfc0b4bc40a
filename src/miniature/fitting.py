"""One resumable training loop for all parts of the miniature."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from lookahead.artifacts import Log, load_tensors, save_tensors
from lookahead.config import Part

CHECKPOINT_EVERY = 200  # steps: a killed build loses a few minutes at most
Loss = Callable[[int, torch.Generator], Tensor]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The generator of one step: it depends on seed and step alone, so a resumed run draws the same batches."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def learning_rate(step: int, part: Part) -> float:
    """Linear warm-up over the first 5 % of the steps, then a half cosine down to 2 % of the peak."""
    warm = max(1, part.steps // 20)
    if step < warm:
        return part.learning_rate * (step + 1) / warm
    phase = (step - warm) / max(1, part.steps - warm)
    return part.learning_rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * phase)))


def fit(module: nn.Module, loss: Loss, part: Part, work: Path, log: Log) -> None:
    """Minimise `loss(step, generator)` over the module's trainable parameters, then put their running average in it.

    Args:
        module: its parameters that require gradients are trained; its buffers are saved too.
        loss: a scalar for one step; every random draw must come from the given generator.
        part: steps, learning rate and seed.
        work: a folder for `resume.safetensors`, from which a killed training goes on.
        log: called with the loss every 20 steps.
    """
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    average = {name: p.detach().clone() for name, p in trained.items()}
    optimiser = torch.optim.AdamW(trained.values(), lr=part.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    start = _resume(module, trained, average, optimiser, work)
    for step in (bar := tqdm(range(start, part.steps), initial=start, total=part.steps, desc=work.name)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, part)
        with sdpa_kernel(SDPBackend.MATH):  # a CPU's fused attention takes 7 times as long backwards in bfloat16
            value = loss(step, step_generator(part.seed, step))
            optimiser.zero_grad(set_to_none=True)
            value.backward()
        nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimiser.step()
        keep = min(0.998, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in trained.values()], 1 - keep)
        if step % 20 == 0:
            bar.set_postfix(loss=f"{value.item():.4f}")
            log({"loss": value.item()}, step)
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == part.steps:
            _save(module, trained, average, optimiser, step + 1, work)
    with torch.no_grad():
        for name, p in trained.items():
            p.copy_(average[name])


def _save(
    module: nn.Module,
    trained: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimiser: torch.optim.AdamW,
    step: int,
    work: Path,
) -> None:
    frozen = {name for name, _ in module.named_parameters()} - set(trained)
    tensors = {f"module/{name}": value for name, value in module.state_dict().items() if name not in frozen}
    for name, p in trained.items():
        state = optimiser.state.get(p)
        if not state:  # no gradient has reached it
            continue
        tensors |= {
            f"average/{name}": average[name],
            f"first/{name}": state["exp_avg"],
            f"second/{name}": state["exp_avg_sq"],
        }
    save_tensors(
        work / "resume.safetensors",
        {k: v.detach().clone().contiguous() for k, v in tensors.items()},
        {"step": str(step)},
    )


def _resume(
    module: nn.Module,
    trained: dict[str, nn.Parameter],
    average: dict[str, Tensor],
    optimiser: torch.optim.AdamW,
    work: Path,
) -> int:
    path = work / "resume.safetensors"
    if not path.exists():
        return 0
    tensors, metadata = load_tensors(path)
    step = int(metadata["step"])
    module.load_state_dict(
        {k.removeprefix("module/"): v for k, v in tensors.items() if k.startswith("module/")}, strict=False
    )
    for name, p in trained.items():
        if f"first/{name}" not in tensors:
            continue
        average[name].copy_(tensors[f"average/{name}"])
        optimiser.state[p] = {
            "step": torch.tensor(float(step)),
            "exp_avg": tensors[f"first/{name}"],
            "exp_avg_sq": tensors[f"second/{name}"],
        }
    return step
