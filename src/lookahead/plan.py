"""What a world's stages will take before they start: pictures, hours, memory, disk and downloads.

Work is counted in FLOP of the networks. Hours follow from the rate at which a stage ran here before, else from
that of another stage, else from an assumed one, and say which. Memory is that of the earlier run, else computed.
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import psutil
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from lookahead.artifacts import STATE, read_json, write_json
from lookahead.config import Checkpoints, World, with_overrides
from lookahead.dataset.prompts import read_prompts
from lookahead.world import device
from lookahead.world.hub import downloads, find

RATES = STATE / "measured.json"
STAGES = ("generate", "features", "train/noise_only", "train/lookahead", "evaluate")
ASSUMED = {"cuda": 30.0, "cpu": 0.04}  # TFLOP/s of a GPU such as an RTX 4070, and of a processor's core: not measured
STEERED = 4  # plain steps that one with lookahead guidance costs
EXTENDED = 1.2  # of a U-Net's FLOP, with the keys and values of a reference in its self-attention (docs/sdxl.md)
PNG = 1.5  # bytes a pixel of the generator's pictures; a rule of thumb


class Networks(NamedTuple):
    """TFLOP of one picture through each network, and the bytes of its features."""

    unet: float
    encode: float
    decode: float
    preview: float
    image: float
    features: float


KNOWN = {  # at the pictures' size that the base was trained for; `counted` of the published configurations
    "stable-diffusion-v1-5/stable-diffusion-v1-5": (512, Networks(0.803, 1.117, 2.515, 0.141, 0.335, 0.7e6)),
    "stabilityai/stable-diffusion-xl-base-1.0": (1024, Networks(6.761, 4.879, 10.470, 0.565, 0.335, 0.8e6)),
}

COMPUTED = {  # GB of a GPU, at the worlds' batch sizes; docs/sdxl.md has the command
    "stable-diffusion-v1-5/stable-diffusion-v1-5": {"train": 4.3},
    "stabilityai/stable-diffusion-xl-base-1.0": {"train": 23.5},
}


class Stage(NamedTuple):
    """A stage's work: how many pictures (or samples of a training), their TFLOP, and the bytes of its output."""

    name: str
    pictures: int
    tflop: float
    size: float = 0.0


class Measured(NamedTuple):
    """What a stage took here: TFLOP a second, and GB at its peak."""

    rate: float
    memory: float


class Estimate(NamedTuple):
    """The hours of a stage here, whether its rate was measured, its hours on a GPU of `ASSUMED` rate, and memory."""

    stage: Stage
    hours: float
    basis: str
    gpu_hours: float
    memory: float | None  # GB, of the GPU if there is one; None is not known


def counted(unet: Any, vae: Any, preview: Any, vision: Any, side: int) -> Networks:
    """TFLOP of networks with these configurations for pictures of a side in pixels."""

    def tflop(run: Any, *shapes: tuple[int, ...], **options: Any) -> float:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            run(*(torch.zeros(shape) for shape in shapes), **options)
        return float(counter.get_total_flops()) / 1e12

    with torch.device("meta"):
        denoiser, autoencoder = UNet2DConditionModel.from_config(unet), AutoencoderKL.from_config(vae)
        tiny, encoder = AutoencoderTiny.from_config(preview), CLIPVisionModelWithProjection(vision)
        latents = (1, denoiser.config.in_channels, *[side // 2 ** (len(autoencoder.config.block_out_channels) - 1)] * 2)
        added, config = {}, denoiser.config
        if config.addition_embed_type == "text_time":
            pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
            added = {"text_embeds": torch.zeros(1, pooled), "time_ids": torch.zeros(1, 6)}
        tokens = (1, 77, config.cross_attention_dim)
        return Networks(
            unet=tflop(denoiser, latents, (1,), tokens, added_cond_kwargs=added),
            encode=tflop(autoencoder.encode, (1, 3, side, side)),
            decode=tflop(autoencoder.decode, latents),
            preview=tflop(tiny.decode, latents),
            image=tflop(encoder, (1, 3, vision.image_size, vision.image_size)),
            features=2.0 * ((vision.image_size // vision.patch_size) ** 2 + 1) * vision.hidden_size
            + 2.0 * torch.Size(latents).numel(),
        )


def networks(checkpoints: Checkpoints) -> Networks:
    """The world's, known by the name of its base, or counted from the configurations of its folders."""
    known = KNOWN.get(checkpoints.base.split("@")[0])
    if known is not None:
        side, own = known
        area = (checkpoints.resolution / side) ** 2
        scaled = {name: getattr(own, name) * area for name in ("unet", "encode", "decode", "preview")}
        return own._replace(**scaled)
    base = find("base", checkpoints)[0]
    vae = (base, "vae") if checkpoints.vae is None else (find("vae", checkpoints)[0], None)
    vision = Path(find("image_encoder", checkpoints)[0], checkpoints.image_encoder.subfolder)
    tiny = AutoencoderTiny.load_config(find("preview_vae", checkpoints)[0])
    return counted(
        UNet2DConditionModel.load_config(base, subfolder="unet"),
        AutoencoderKL.load_config(vae[0], subfolder=vae[1]),
        {name: value for name, value in tiny.items() if name != "block_out_channels"},  # which diffusers adds itself
        CLIPVisionConfig.from_pretrained(vision),
        checkpoints.resolution,
    )


def _evaluated(world: World, nets: Networks) -> Stage:
    """All cells' pictures and previews; a prediction with keys and values also encodes the reference."""
    settings = world.evaluation()
    scales, kv = settings.kv_guidance, world.train.kv.enabled
    extended = (EXTENDED + 1) * ((scales.both > 0) + (scales.kv > 0)) + 1 + (scales.image > 0) if kv else 2
    plain = [2, extended, extended, *([2] if kv else [])]  # U-Net passes of a step, in each cell
    steered = [] if settings.steering is None else [STEERED * extended]
    shots = settings.people * settings.seeds * (settings.photo_prompts + len(read_prompts(settings.prompts).stylised))
    spread = settings.diversity.people * settings.diversity.prompts * settings.diversity.seeds
    previews = settings.previews.people * len(settings.previews.timesteps) * len(settings.previews.scales)
    drawn = shots * len(plain + steered) + spread * (len(plain) + 1)
    passes = settings.num_inference_steps * (shots * sum(plain + steered) + spread * (sum(plain) + 2))
    tflop = passes * nets.unet + drawn * nets.decode + previews * (nets.unet + nets.preview)
    return Stage("evaluate", drawn + previews, tflop, drawn * PNG * world.checkpoints.resolution**2)


def stages(world: World) -> list[Stage]:
    """The work of each stage."""
    checkpoints, data, train = world.checkpoints, world.generate, world.train
    nets, generator = networks(checkpoints), world.checkpoints.generator
    pictures, passes = data.people * (data.photos + data.stylised), 1 + (generator.guidance_scale > 1)
    area = (generator.resolution / checkpoints.resolution) ** 2
    drawing = area * (generator.num_inference_steps * passes * nets.unet + nets.decode)
    samples = train.steps * train.batch_size * train.gradient_accumulation_steps
    kv = train.kv.enabled
    one = nets.unet * (2 + train.gradient_checkpointing) * (EXTENDED if kv else 1)  # forward and backward
    previewed = one + 3 * nets.preview if train.lookahead.weight > 0 else 0.0
    return [
        Stage("generate", pictures, pictures * drawing, pictures * PNG * checkpoints.resolution**2),
        Stage("features", pictures, pictures * (nets.encode + nets.image), pictures * nets.features),
        Stage("train/noise_only", samples, samples * one * (1 + kv)),
        Stage("train/lookahead", samples, samples * (one * (1 + kv) + previewed)),
        _evaluated(world, nets),
    ]


def measurements(world: World) -> dict[str, Measured]:
    """What stages of this world took here before."""
    found = read_json(RATES).get(world.name, {}) if RATES.is_file() else {}
    return {name: Measured(*figures) for name, figures in found.items()}


def estimates(world: World) -> list[Estimate]:
    """The hours and the memory of each stage on this machine."""
    measured, kind = measurements(world), device().type
    assumed = ASSUMED[kind] * (psutil.cpu_count(logical=False) or 1 if kind == "cpu" else 1)
    computed = COMPUTED.get(world.checkpoints.base.split("@")[0], {})
    found = []
    for stage in stages(world):
        own = measured.get(stage.name)
        rate, basis = (own.rate, "measured") if own else (assumed, "assumed")
        if measured and not own:
            rate, basis = min(other.rate for other in measured.values()), "from other stages"
        memory = own.memory if own else computed.get(stage.name.split("/")[0])
        found.append(Estimate(stage, stage.tflop / rate / 3600, basis, stage.tflop / ASSUMED["cuda"] / 3600, memory))
    return found


def peak_memory() -> float:
    """GB at this process's peak: of the GPU if there is one, else of the machine."""
    if device().type == "cuda":
        return torch.cuda.max_memory_reserved() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)


def record(world: World, name: str, seconds: float) -> None:
    """Note the rate at which a stage has run here, the lowest so far (a run that was continued seems fast)."""
    if name not in STAGES:
        return
    rate = next(stage.tflop for stage in stages(world) if stage.name == name) / seconds
    own = measurements(world)
    before = own.get(name, Measured(math.inf, 0.0))
    own[name] = Measured(min(before.rate, rate), max(before.memory, peak_memory()))
    write_json(RATES, (read_json(RATES) if RATES.is_file() else {}) | {world.name: own})


def cheaper(world: World) -> Iterator[tuple[str, float]]:
    """Overrides that halve the largest numbers, each with the share of the work that is then left."""
    whole = sum(stage.tflop for stage in stages(world))
    for path in ("generate.people", "train.steps"):
        section, name = path.split(".")
        half = getattr(getattr(world, section), name) // 2
        left = sum(stage.tflop for stage in stages(with_overrides(world, {path: half})))
        yield f"-S '++worlds.{world.name}.{path}={half}'", left / whole


def duration(hours: float) -> str:
    """Hours as people say them."""
    for unit, size in (("days", 24.0), ("h", 1.0), ("min", 1 / 60)):
        if hours >= 2 * size:
            return f"{hours / size:.0f} {unit}"
    return "1 min" if hours > 1 / 120 else "seconds"


def gigabytes(size: float) -> str:
    """Bytes as GB; nothing where they are few."""
    return f"{size / 1e9:,.1f} GB" if size > 1e7 else ""


def table(world: World) -> pd.DataFrame:
    """A row a stage, and their sum: pictures, hours here and on a GPU, memory, and the output's size on the disk."""
    found = estimates(world)
    rows = [
        {
            "stage": each.stage.name,
            "pictures": f"{each.stage.pictures:,}",
            "here": f"{duration(each.hours)} ({each.basis})",
            f"at {ASSUMED['cuda']:.0f} TFLOP/s": duration(each.gpu_hours),
            "memory": "–" if each.memory is None else f"{each.memory:.1f} GB",
            "disk": gigabytes(each.stage.size),
        }
        for each in found
    ]
    hours, gpu_hours = sum(each.hours for each in found), sum(each.gpu_hours for each in found)
    total = ["all", "", duration(hours), duration(gpu_hours), "", gigabytes(sum(each.stage.size for each in found))]
    return pd.DataFrame([*rows, dict(zip(rows[0], total, strict=True))])


def announcement(world: World) -> str:
    """What a run of all stages will take, as `lookahead plan` and the first stage say it."""
    size = sum(part.size for part in downloads(world.checkpoints) if part.missing())
    lines = [table(world).to_markdown(index=False, disable_numparse=True), ""]
    lines += [f"Still to be downloaded: {size:.1f} GB (`lookahead doctor` lists them)"] if size else []
    if any(each.basis == "assumed" for each in estimates(world)):
        lines.append("Assumed rates were not measured; once a stage has run here, its own rate replaces them.")
    lines.append("Cheaper:")
    for override, share in cheaper(world):
        lines.append(f"  dvc exp run -S world={world.name} {override}    {share:.0%} of the work")
    return "\n".join(lines)
