"""Measures the finished miniature on people no part was trained on, for `metrics.json` and the model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image
from torch import Tensor

from lookahead.artifacts import atomic, write_json
from lookahead.config import Checkpoints
from lookahead.method.diffusion import add_noise, clean_latents
from lookahead.world import (
    FAST_CHILD,
    Pipeline,
    attach_adapter,
    attach_fast_child,
    open_generator,
    open_image_encoder,
    open_pipeline,
    open_preview_vae,
)
from miniature.base import embed_prompts, predict, schedule_of
from miniature.faces_card import measure_faces
from miniature.image_encoder import null_features
from miniature.judge import Judge, rank_one
from miniature.pool import trained_names
from miniature.renderer import Portraits, draw_identities, name_identity, render
from miniature.scorer import measure_scorer
from miniature.words import FIRST, LAST, NOBODY, SCENES, STYLES, caption, held_out

SEED = 88_000
NAMES = 100  # trained names and as many new ones: together a gallery of 200
GUIDANCE = 3.0
STEPS = 25
TIMESTEPS = (199, 399, 499, 599, 699, 799, 899, 959)
PEOPLE = 48
BATCH = 50
MARK = "<!-- measured by `python stages/miniature.py card`; what stands below is rewritten -->"


def photos(identity: Tensor, seed: int, style: Tensor | None = None) -> Portraits:
    """Renders of the given people in random scenes; plain photos unless styles are given."""
    generator = torch.Generator().manual_seed(seed)
    scene = torch.randint(len(SCENES), (len(identity),), generator=generator)
    return render(identity, torch.zeros_like(scene) if style is None else style, scene, generator, "portrait")


def draw(pipe: Pipeline, captions: Sequence[str], steps: int, guidance: float, seed: int) -> Tensor:
    """Pictures (B, 3, 64, 64) in [-1, 1] of captions by a pipeline."""
    made = []
    for start in range(0, len(captions), BATCH):
        batch = list(captions[start : start + BATCH])
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(batch))]
        out = pipe(
            prompt=batch,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            height=64,
            width=64,
            output_type="pt",
        )
        made.append(out.images.float() * 2 - 1)
    return torch.cat(made)


def chosen_names() -> tuple[Tensor, Tensor]:
    """NAMES trained and NAMES held-out combinations, (2 NAMES, 2) int64, and their identities."""
    new = torch.tensor([(i, j) for i in range(len(FIRST)) for j in range(len(LAST)) if held_out(i, j)])
    old = trained_names()
    generator = torch.Generator().manual_seed(SEED)
    pick = [group[torch.randperm(len(group), generator=generator)[:NAMES]] for group in (old, new)]
    names = torch.cat(pick)
    return names, name_identity(names[:, 0], names[:, 1])


def measure_drawing(pipe: Pipeline, judge: Judge, steps: int, guidance: float, prefix: str) -> dict[str, float]:
    """Style, scene and person of pictures drawn from captions with names."""
    names, identity = chosen_names()
    gallery = judge.found(photos(identity, SEED + 1).pixels)[0]
    generator = torch.Generator().manual_seed(SEED + 2)
    styles = torch.cat(
        [torch.zeros(2 * NAMES, dtype=torch.int64), torch.randint(1, len(STYLES), (2 * NAMES,), generator=generator)]
    )
    scenes = torch.randint(len(SCENES), (4 * NAMES,), generator=generator)
    who = [f"{FIRST[i]} {LAST[j]}" for i, j in names.tolist()] * 2
    captions = [caption(tuple(STYLES)[s], tuple(SCENES)[c], w) for s, c, w in zip(styles, scenes, who, strict=True)]
    made = draw(pipe, captions, steps, guidance, SEED)
    style, scene = judge.style_and_scene(made)
    queries, found = judge.found(made)
    own = (queries * gallery.repeat(2, 1)).sum(1)
    answer = torch.arange(2 * NAMES)
    figures = {
        "style_right": float((style == styles).float().mean()),
        "scene_right": float((scene == scenes).float().mean()),
        "found": float(found.float().mean()),
        "trained_name_rank_1": rank_one(queries[:NAMES], gallery, answer[:NAMES]),
        "new_name_rank_1": rank_one(queries[NAMES : 2 * NAMES], gallery, answer[NAMES:]),
        "photo_similarity": float(own[: 2 * NAMES].mean()),
        "drawing_similarity": float(own[2 * NAMES :].mean()),
    }
    return {f"{prefix}_{name}": value for name, value in figures.items()}


@torch.no_grad()
def measure_autoencoder(pipe: Pipeline, preview_vae: Any, judge: Judge) -> dict[str, float]:
    """Signal-to-noise ratio and kept identity of reconstructions of people never seen."""
    generator = torch.Generator().manual_seed(SEED + 3)
    shown = photos(draw_identities(200, generator), SEED + 4, torch.randint(len(STYLES), (200,), generator=generator))
    latents = pipe.vae.encode(shown.pixels).latent_dist.mean
    before = judge.at(shown.pixels, shown.landmarks)
    figures = {}
    for name, decoder in (("vae", pipe.vae), ("preview_vae", preview_vae)):
        made = torch.cat([decoder.decode(chunk).sample for chunk in latents.split(50)]).clamp(-1, 1)
        error = (made - shown.pixels).square().mean((1, 2, 3)).clamp(min=1e-8)
        figures[f"{name}_psnr"] = float((10 * torch.log10(4 / error)).mean())
        figures[f"{name}_similarity"] = float((before * judge.at(made, shown.landmarks)).sum(1).mean())
    return figures


@torch.no_grad()
def measure_previews(pipe: Pipeline, preview_vae: Any, judge: Judge, base: Path) -> dict[str, float]:
    """Similarity of one-step previews to the person, by timestep and by strength of the fast child (0 is naive x0)."""
    names, identity = chosen_names()
    names, identity = names[:PEOPLE], identity[:PEOPLE]
    shown, other = photos(identity, SEED + 5), photos(identity, SEED + 6)
    reference = judge.at(other.pixels, other.landmarks)
    latents = pipe.vae.encode(shown.pixels).latent_dist.mean
    captions = [
        caption("photo", tuple(SCENES)[c], f"{FIRST[i]} {LAST[j]}")
        for c, (i, j) in zip(shown.scene, names.tolist(), strict=True)
    ]
    prompts, schedule = embed_prompts(base, captions), schedule_of(pipe.scheduler)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED + 7))
    figures = {}
    for t in TIMESTEPS:
        times = torch.full((PEOPLE,), t)
        noised = add_noise(schedule, latents, noise, times)
        for scale in (0.0, 0.5, 1.0):
            pipe.unet.set_adapters([FAST_CHILD], weights=[scale])
            clean = clean_latents(schedule, noised, predict(pipe.unet, noised, times, prompts), times)
            seen = judge.at(preview_vae.decode(clean).sample, shown.landmarks)
            figures[f"preview_{t}_{scale}"] = float((seen * reference).sum(1).mean())
    late = [t for t in TIMESTEPS if t >= 500]
    figures["preview_gain"] = sum(figures[f"preview_{t}_1.0"] - figures[f"preview_{t}_0.0"] for t in late) / len(late)
    return figures


@torch.no_grad()
def measure_adapter(checkpoints: Checkpoints, judge: Judge, portraits: Path) -> dict[str, float]:
    """The untuned adapter on the validation people: similarity to the person, to a stranger, and between two photos."""
    pipe = open_pipeline(checkpoints)
    attach_adapter(pipe, checkpoints)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    people = sorted(portraits.iterdir())[:PEOPLE]
    encoder, processor = open_image_encoder(checkpoints)
    first, second = ([Image.open(person / f"{i}.jpg").convert("RGB") for person in people] for i in (0, 1))
    features = encoder(processor(first, return_tensors="pt").pixel_values, output_hidden_states=True).hidden_states[-2]
    nobody = null_features(encoder)
    made = []
    for i, seen in enumerate(features):  # diffusers takes one reference a call
        drawn = pipe(
            prompt=caption("photo", tuple(SCENES)[i % len(SCENES)], NOBODY),
            num_inference_steps=20,
            guidance_scale=GUIDANCE,
            ip_adapter_image_embeds=[torch.stack([nobody[0], seen]).unsqueeze(1)],
            generator=torch.Generator().manual_seed(SEED + i),
            height=64,
            width=64,
            output_type="pt",
        )
        made.append(drawn.images.float() * 2 - 1)
    photo, other = (judge.found(pixels_of_images(images))[0] for images in (first, second))
    queries = judge.found(torch.cat(made))[0]
    return {
        "adapter_similarity": float((queries * photo).sum(1).mean()),
        "adapter_stranger": float((queries * photo.roll(1, 0)).sum(1).mean()),
        "adapter_ceiling": float((other * photo).sum(1).mean()),
    }


def pixels_of_images(images: list[Image.Image]) -> Tensor:
    """PIL pictures as (B, 3, H, W) in [-1, 1]."""
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 127.5 - 1 for image in images])


def measure_generative(checkpoints: Checkpoints, portraits: Path) -> dict[str, float]:
    """Every figure of the generative parts."""
    judge, preview_vae = Judge(checkpoints), open_preview_vae(checkpoints)
    pipe = open_pipeline(checkpoints)
    figures = measure_autoencoder(pipe, preview_vae, judge)
    train_scheduler = pipe.scheduler
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(train_scheduler.config)
    figures |= measure_drawing(pipe, judge, STEPS, GUIDANCE, "base")
    generator = checkpoints.generator
    figures |= measure_drawing(
        open_generator(checkpoints), judge, generator.num_inference_steps, generator.guidance_scale, "fast_child"
    )
    pipe.scheduler = train_scheduler
    attach_fast_child(pipe, checkpoints)
    figures |= measure_previews(pipe, preview_vae, judge, Path(checkpoints.base))
    return figures | measure_adapter(checkpoints, judge, portraits)


def write_card(checkpoints: Checkpoints, root: Path) -> None:
    """Measure everything and write `metrics.json` and the table of `MODEL_CARD.md` below `root`."""
    figures = measure_faces(Path(checkpoints.faces.report).parent, checkpoints.faces.detection_size)
    figures |= {f"clip_{name}": value for name, value in measure_scorer(root / "clip", PEOPLE, SEED).items()}
    figures |= measure_generative(checkpoints, root / "portraits" / "validation")
    write_json(root / "metrics.json", figures)
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in sorted(figures.items()))
    table = f"{MARK}\n\n| figure | value |\n|---|---|\n{rows}\n"
    card = root / "MODEL_CARD.md"
    with atomic(card) as path:
        path.write_text(card.read_text(encoding="utf-8").split(MARK)[0] + table, encoding="utf-8")
