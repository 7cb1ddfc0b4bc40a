"""The fast child: an LCM-LoRA distilled from the guided base.

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

from lookahead.artifacts import load_tensors, save_tensors
from lookahead.method.diffusion import NoiseSchedule, add_noise, clean_latents
from lookahead.sampling.loop import noise_schedule
from lookahead.world import device
from miniature.base import Prompts, embed_prompts, new_scheduler, predict
from miniature.training import Part, autocast, fit

GUIDANCE_SCALE = 3.0
TEACHER_STEPS = 12  # from t = 999 to 0
RANK = 16
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2"]
TARGETS += ["time_emb_proj"]
CHUNK = 100  # trajectories drawn at once
JITTER = 30  # timesteps: trajectories start a little off the grid, so that the LoRA sees every t


def ddim_step(schedule: NoiseSchedule, noised: Tensor, prediction: Tensor, t: Tensor, earlier: Tensor) -> Tensor:
    """One deterministic step from t (B,) to a smaller timestep (B,); a negative one means clean latents."""
    clean = clean_latents(schedule, noised, prediction, t)
    a = schedule.alphas_cumprod[t].view(-1, 1, 1, 1)
    noise = (noised - a.sqrt() * clean) / (1 - a).sqrt()
    next_a = schedule.alphas_cumprod[earlier.clamp(min=0)].where(earlier >= 0, 1.0).view(-1, 1, 1, 1)
    return next_a.sqrt() * clean + (1 - next_a).sqrt() * noise


@torch.no_grad()
def draw_trajectories(
    unet: UNet2DConditionModel, schedule: NoiseSchedule, latents: Tensor, prompts: Prompts, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The guided teacher's way from noised latents (B, 8, 16, 16) to clean ones.

    Returns:
        points: (B, TEACHER_STEPS + 1, 8, 16, 16), the last of them clean.
        t: (B, TEACHER_STEPS) int64, the timestep of each point but the last.
    """
    start = 999 - torch.randint(JITTER + 1, (len(latents),), generator=generator)
    grid = torch.linspace(1, 0, TEACHER_STEPS + 1)[None] * (start[:, None] + 1) - 1
    t = grid.round().long().to(latents.device)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    points = [add_noise(schedule, latents, noise, t[:, 0])]
    both = Prompts(torch.cat([prompts.tokens, prompts.tokens * 0]), torch.cat([prompts.pooled, prompts.pooled * 0]))
    for step in range(TEACHER_STEPS):
        now = t[:, step]
        with autocast():
            conditional, empty = predict(unet, torch.cat([points[-1]] * 2), torch.cat([now] * 2), both).chunk(2)
        guided = empty + GUIDANCE_SCALE * (conditional - empty)
        points.append(ddim_step(schedule, points[-1], guided, now, t[:, step + 1]))
    return torch.stack(points, 1), t[:, :-1]


def open_trajectories(
    unet: UNet2DConditionModel, latents: Tensor, prompts: Prompts, folder: Path, seed: int
) -> tuple[Tensor, Tensor]:
    """As `draw_trajectories`, from all latents (N, 8, 16, 16), chunk by chunk; chunks in the folder are not drawn."""
    schedule, chunks = noise_schedule(new_scheduler()), []
    for index, rows in enumerate(tqdm(torch.arange(len(latents)).split(CHUNK), desc="teacher")):
        path = folder / f"{index:03d}.safetensors"
        if not path.exists():
            generator = torch.Generator().manual_seed(seed * 100_003 + index)
            clean = latents[rows].float().to(device())
            points, t = draw_trajectories(unet, schedule, clean, prompts[rows], generator)
            save_tensors(path, {"points": points.half(), "t": t.contiguous()}, {})
        chunks.append(load_tensors(path)[0])
    return torch.cat([chunk["points"] for chunk in chunks]), torch.cat([chunk["t"] for chunk in chunks])


def build_fast_child(
    unet: UNet2DConditionModel, latents: Tensor, captions: list[str], base: Path, part: Part, out: Path, work: Path
) -> None:
    """Distil the LoRA from trajectories of the frozen U-Net and save it as diffusers' LCM-LoRA file.

    Args:
        unet: the frozen base U-Net; the LoRA is installed in it.
        latents: (N, 8, 16, 16), the pictures that trajectories start from.
        captions: of the pictures.
        base: the folder of the base pipeline.
        part: steps, batch size, learning rate, seed.
        out: the LoRA's folder.
        work: resume state.
    """
    prompts = embed_prompts(base, captions)
    points, times = open_trajectories(unet, latents, prompts, work / "trajectories", part.seed)
    schedule = noise_schedule(new_scheduler())
    torch.manual_seed(part.seed)
    unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS), "lcm")

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(points), (part.batch_size,), generator=generator)
        at = torch.randint(TEACHER_STEPS, (part.batch_size,), generator=generator)
        noised, end, t = (x.to(device()) for x in (points[rows, at].float(), points[rows, -1].float(), times[rows, at]))
        with autocast():
            prediction = predict(unet, noised, t, prompts[rows])
        return F.huber_loss(clean_latents(schedule, noised, prediction, t), end, delta=0.5)

    fit(unet, loss, part, work)
    layers = {name: tensor.half() for name, tensor in get_peft_model_state_dict(unet, adapter_name="lcm").items()}
    StableDiffusionXLPipeline.save_lora_weights(out, unet_lora_layers=layers, safe_serialization=True)
