"""How the parts are trained: their settings, one resumable loop with a running average, and changes of pictures."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from lookahead.artifacts import load_tensors, save_tensors
from lookahead.config.fields import Count, Positive, Section, Seed
from lookahead.world import compute_dtype, device

CHECKPOINT_EVERY = 200  # steps: a killed build loses a few minutes at most
SHIFT = 5  # pixels
BLUR = 1.2  # pixels, standard deviation
Loss = Callable[[int, torch.Generator], Tensor]


class Part(Section):
    """How one part of the miniature is trained."""

    steps: Count
    batch_size: Count
    learning_rate: Positive
    seed: Seed


def autocast() -> torch.autocast:
    """Mixed precision where the device computes faster in it, else none."""
    dtype = compute_dtype()
    return torch.autocast(device().type, dtype, enabled=dtype != torch.float32)


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


def fit(module: nn.Module, loss: Loss, part: Part, work: Path) -> None:
    """Minimise `loss(step, generator)` over the module's trainable parameters, then put their running average in it.

    Args:
        module: its parameters that require gradients are trained, on the device; its buffers are saved too.
        loss: a scalar for one step; every random draw must come from the given generator, which is the CPU's.
        part: steps, learning rate and seed.
        work: a folder for `resume.safetensors`, from which a killed training goes on.
    """
    module.to(device())
    trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
    average = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=part.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    path = work / "resume.safetensors"
    start = _resume(module, average, optimizer, path) if path.exists() else 0
    for step in (bar := tqdm(range(start, part.steps), initial=start, total=part.steps, desc=work.name)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, part)
        with sdpa_kernel(SDPBackend.MATH):  # a CPU's fused attention takes 7 times as long backwards in bfloat16
            value = loss(step, step_generator(part.seed, step))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
        nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        keep = min(0.998, (step + 1) / (step + 10))
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in trained.values()], 1 - keep)
        if step % 20 == 0:
            bar.set_postfix(loss=f"{value.item():.4f}")
        if (step + 1) % CHECKPOINT_EVERY == 0 or step + 1 == part.steps:
            _save(module, average, optimizer, step + 1, path)
    with torch.no_grad():
        for name, p in trained.items():
            p.copy_(average[name])


def _save(
    module: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, step: int, path: Path
) -> None:
    """Write all that `_resume` reads; frozen parameters come from their own files."""
    frozen = {name for name, p in module.named_parameters() if not p.requires_grad}
    tensors = {f"module/{name}": value for name, value in module.state_dict().items() if name not in frozen}
    tensors |= {f"average/{name}": value for name, value in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
    save_tensors(path, {k: v.detach().clone().contiguous() for k, v in tensors.items()}, {"step": str(step)})


def _resume(module: nn.Module, average: dict[str, Tensor], optimizer: torch.optim.Optimizer, path: Path) -> int:
    """Read the state that `_save` wrote; returns the next step."""
    tensors, metadata = load_tensors(path)
    state: dict[int, dict[str, Tensor]] = {}
    weights = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "module":
            weights[rest] = value
        elif kind == "average":
            average[rest].copy_(value)
        else:
            index, _, entry = rest.partition("/")
            state.setdefault(int(index), {})[entry] = value
    module.load_state_dict(weights, strict=False)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(metadata["step"])


def move(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to SHIFT pixels, the border repeated, and mirror half of the pictures: (B, 3, H, W) → the same."""
    count, _, height, width = pixels.shape
    shift = torch.randint(-SHIFT, SHIFT + 1, (2, count, 1), generator=generator)
    rows = (torch.arange(height) + shift[0]).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width) + shift[1]).clamp(0, width - 1)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    picture = torch.arange(count)[:, None, None]
    moved: Tensor = pixels.permute(0, 2, 3, 1)[picture, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    return moved.contiguous()


def jitter(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Change contrast by up to 15 % and each colour by up to 0.08."""
    contrast = 1 + 0.15 * (2 * torch.rand(len(pixels), 1, 1, 1, generator=generator) - 1)
    colour = 0.08 * (2 * torch.rand(len(pixels), 3, 1, 1, generator=generator) - 1)
    return (pixels * contrast.to(pixels.device) + colour.to(pixels.device)).clamp(-1, 1)


def blur(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Blur half of the pictures, each by a Gaussian of its own of at most BLUR pixels."""
    count, channels, height, width = pixels.shape
    sigma = BLUR * torch.rand(count, 1, generator=generator).clamp(min=0.1)
    sigma[torch.rand(count, 1, generator=generator) < 0.5] = 0.05  # leaves the picture as it is
    offset = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.softmax(-(offset**2) / (2 * sigma**2), 1).repeat_interleave(channels, 0)  # (B * C, 7)
    kernel = kernel.to(pixels.device)
    stacked = F.pad(pixels.reshape(1, count * channels, height, width), (3, 3, 3, 3), mode="replicate")
    along = F.conv2d(stacked, kernel[:, None, None, :], groups=count * channels)
    return F.conv2d(along, kernel[:, None, :, None], groups=count * channels).reshape(pixels.shape)
