"""The miniature's fast child: an LCM-LoRA distilled from the guided base.

A consistency function maps every point of the teacher's probability-flow trajectory to that trajectory's end. The
teacher's trajectories are drawn once, whole, and the LoRA learns the map directly, f(z_t, t) = z_0. Bootstrapping from
t to the next smaller t, as consistency distillation does, needs many thousand steps until it reaches t = 999, where
one-step previews live.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from lookahead.artifacts import Log, load_tensors, save_tensors
from lookahead.config import Part
from lookahead.method.diffusion import NoiseSchedule, add_noise, clean_latents
from miniature.base import Prompts, embed_prompts, new_scheduler, predict, schedule_of
from miniature.fitting import fit
from miniature.pool import Pool

GUIDANCE = 3.0
SUBSTEPS = 12  # the teacher's steps from t = 999 to 0
RANK = 16
TARGETS = [
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "ff.net.0.proj",
    "ff.net.2",
    "proj_in",
    "proj_out",
    "conv1",
    "conv2",
    "time_emb_proj",
]
CHUNK = 100  # trajectories drawn at once
JITTER = 30  # timesteps: trajectories start a little off the grid, so that the LoRA sees every t


def ddim_step(schedule: NoiseSchedule, noised: Tensor, prediction: Tensor, t: Tensor, earlier: Tensor) -> Tensor:
    """One deterministic step from t (B,) to a smaller timestep (B,); a negative one means clean latents."""
    clean = clean_latents(schedule, noised, prediction, t)
    a = schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
    noise = (noised - a.sqrt() * clean) / (1 - a).sqrt()
    next_a = torch.where(earlier < 0, torch.ones(()), schedule.alphas_cumprod[earlier.clamp(min=0)]).view(-1, 1, 1, 1)
    return next_a.sqrt() * clean + (1 - next_a).sqrt() * noise


@torch.no_grad()
def draw_trajectories(
    unet: UNet2DConditionModel, schedule: NoiseSchedule, latents: Tensor, prompts: Prompts, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The guided teacher's way from noised latents (B, 8, 16, 16) to clean ones.

    Returns:
        points: (B, SUBSTEPS + 1, 8, 16, 16), the last of them clean.
        t: (B, SUBSTEPS) int64, the timestep of each point but the last.
    """
    count = len(latents)
    start = 999 - torch.randint(JITTER + 1, (count,), generator=generator)
    grid = torch.linspace(1, 0, SUBSTEPS + 1)[None] * (start[:, None] + 1) - 1
    t = grid.round().long()
    points = [add_noise(schedule, latents, torch.randn(latents.shape, generator=generator), t[:, 0])]
    both = Prompts(torch.cat([prompts.tokens, prompts.tokens * 0]), torch.cat([prompts.pooled, prompts.pooled * 0]))
    for step in range(SUBSTEPS):
        now = t[:, step]
        with torch.autocast("cpu", torch.bfloat16):
            conditional, empty = predict(unet, torch.cat([points[-1]] * 2), torch.cat([now] * 2), both).chunk(2)
        guided = empty + GUIDANCE * (conditional - empty)
        points.append(ddim_step(schedule, points[-1], guided, now, t[:, step + 1]))
    return torch.stack(points, 1), t[:, :-1]


def build_trajectories(
    unet: UNet2DConditionModel, pool: Pool, latents: Tensor, count: int, base: Path, work: Path, seed: int
) -> Path:
    """Draw `count` trajectories chunk by chunk into a folder, resuming where it stopped."""
    folder = work / "trajectories"
    schedule = schedule_of(new_scheduler())
    for index in tqdm(range(count // CHUNK), desc="teacher"):
        path = folder / f"{index:03d}.safetensors"
        if path.exists():
            continue
        rows = torch.arange(index * CHUNK, (index + 1) * CHUNK)
        prompts = embed_prompts(base, [pool.caption(int(row)) for row in rows])
        generator = torch.Generator().manual_seed(seed * 100_003 + index)
        points, t = draw_trajectories(unet, schedule, latents[rows].float(), prompts, generator)
        save_tensors(path, {"points": points.half(), "t": t.contiguous()}, {})
    return folder


def build_fast_child(
    unet: UNet2DConditionModel,
    pool: Pool,
    latents: Tensor,
    trajectories: int,
    base: Path,
    part: Part,
    out: Path,
    work: Path,
    log: Log,
) -> None:
    """Distil the LoRA from the teacher's trajectories and save it as diffusers' LCM-LoRA file."""
    unet.eval().requires_grad_(False)
    folder = build_trajectories(unet, pool, latents, trajectories, base, work, part.seed)
    chunks = [load_tensors(path)[0] for path in sorted(folder.glob("*.safetensors"))]
    points, times = torch.cat([c["points"] for c in chunks]), torch.cat([c["t"] for c in chunks])
    prompts = embed_prompts(base, [pool.caption(row) for row in range(len(points))])
    schedule = schedule_of(new_scheduler())
    torch.manual_seed(part.seed)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS), "lcm")

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(points), (part.batch,), generator=generator)
        place = torch.randint(SUBSTEPS, (part.batch,), generator=generator)
        noised, end, t = points[rows, place].float(), points[rows, -1].float(), times[rows, place]
        with torch.autocast("cpu", torch.bfloat16):
            prediction = predict(unet, noised, t, prompts[rows])
        return F.huber_loss(clean_latents(schedule, noised, prediction, t), end, delta=0.5)

    fit(unet, loss, part, work, log)
    layers = {name: tensor.half() for name, tensor in get_peft_model_state_dict(unet, adapter_name="lcm").items()}
    StableDiffusionXLPipeline.save_lora_weights(out, unet_lora_layers=layers, safe_serialization=True)
