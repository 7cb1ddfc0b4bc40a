"""Measures the finished miniature on people no part was trained on, for `metrics.json` and the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from lookahead import world
from lookahead.artifacts import atomic, write_json
from lookahead.config import Checkpoints
from lookahead.method.diffusion import add_noise, clean_latents
from lookahead.sampling.loop import noise_schedule
from miniature.base import embed_prompts, predict
from miniature.data import to_pixels
from miniature.encoders import image_features
from miniature.evaluator import Evaluator, measure_faces, rank_one
from miniature.renderer import SIZE, Portraits, render
from miniature.scorer import measure_scorer
from miniature.vocabulary import (
    SCENES,
    STYLES,
    captions,
    captions_without_names,
    draw_identities,
    name_identity,
    names,
    subjects,
)

SEED = 88_000
NAMES = 100  # trained names and as many new ones: together a gallery of 200
GUIDANCE_SCALE = 3.0
STEPS = 25
ADAPTER_STEPS = 20
TIMESTEPS = (199, 399, 499, 599, 699, 799, 899, 959)
PEOPLE = 48
BATCH_SIZE = 50
MARK = "<!-- measured by `python stages/miniature.py card`; what stands below is rewritten -->"


def photos(identity: Tensor, seed: int, style: Tensor | None = None) -> Portraits:
    """Renders of the given people in random scenes; plain photos unless styles are given."""
    generator = torch.Generator().manual_seed(seed)
    scene = torch.randint(len(SCENES), (len(identity),), generator=generator)
    return render(identity, torch.zeros_like(scene) if style is None else style, scene, generator, "portrait")


def sample(
    pipe: world.Pipeline, prompts: list[str], steps: int, guidance_scale: float, seed: int, **image: Any
) -> Tensor:
    """Pictures (B, 3, 64, 64) in [-1, 1] of prompts by a pipeline, on the CPU; `image` conditions all of them."""
    drawn = []
    for start in range(0, len(prompts), BATCH_SIZE):
        batch = prompts[start : start + BATCH_SIZE]
        generators = [torch.Generator().manual_seed(seed + start + i) for i in range(len(batch))]
        options = {"height": SIZE, "width": SIZE, "output_type": "pt", "generator": generators} | image
        out = pipe(prompt=batch, num_inference_steps=steps, guidance_scale=guidance_scale, **options)
        drawn.append(out.images.float().cpu() * 2 - 1)
    return torch.cat(drawn)


def chosen_names() -> tuple[list[str], Tensor]:
    """NAMES trained and NAMES held-out names, and their identities (2 NAMES, IDENTITY_SIZE)."""
    generator = torch.Generator().manual_seed(SEED)
    groups = [names(trained=True), names(trained=False)]
    pairs = torch.cat([group[torch.randperm(len(group), generator=generator)[:NAMES]] for group in groups])
    return subjects(*pairs.T), name_identity(*pairs.T)


def measure_sampling(
    pipe: world.Pipeline, evaluator: Evaluator, steps: int, guidance_scale: float, prefix: str
) -> dict[str, float]:
    """Style, scene and person of pictures drawn from captions with names: photos, then as many drawings."""
    who, identity = chosen_names()
    gallery = evaluator.found(photos(identity, SEED + 1).pixels)[0]
    generator = torch.Generator().manual_seed(SEED + 2)
    drawings = torch.randint(1, len(STYLES), (2 * NAMES,), generator=generator)
    styles = torch.cat([torch.zeros(2 * NAMES, dtype=torch.int64), drawings])
    scenes = torch.randint(len(SCENES), (4 * NAMES,), generator=generator)
    pictures = sample(pipe, captions(styles, scenes, who * 2), steps, guidance_scale, SEED)
    style, scene = evaluator.style_and_scene(pictures)
    queries, found = evaluator.found(pictures)
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
def measure_autoencoder(pipe: world.Pipeline, preview_vae: Any, evaluator: Evaluator) -> dict[str, float]:
    """Signal-to-noise ratio and kept identity of reconstructions of people never seen."""
    generator = torch.Generator().manual_seed(SEED + 3)
    shown = photos(draw_identities(200, generator), SEED + 4, torch.randint(len(STYLES), (200,), generator=generator))
    latents = pipe.vae.encode(shown.pixels.to(world.device())).latent_dist.mean
    before = evaluator.at(shown.pixels, shown.landmarks)
    figures = {}
    for name, decoder in (("vae", pipe.vae), ("preview_vae", preview_vae)):
        decoded = torch.cat([decoder.decode(chunk).sample for chunk in latents.split(50)]).clamp(-1, 1).cpu()
        error = (decoded - shown.pixels).square().mean((1, 2, 3)).clamp(min=1e-8)
        figures[f"{name}_psnr"] = float((10 * torch.log10(4 / error)).mean())
        figures[f"{name}_similarity"] = float((before * evaluator.at(decoded, shown.landmarks)).sum(1).mean())
    return figures


@torch.no_grad()
def measure_previews(pipe: world.Pipeline, preview_vae: Any, evaluator: Evaluator, base: Path) -> dict[str, float]:
    """Similarity of one-step previews to the person, by timestep and by strength of the fast child (0 is naive x0)."""
    who, identity = chosen_names()
    who, identity = who[:PEOPLE], identity[:PEOPLE]
    shown, other = photos(identity, SEED + 5), photos(identity, SEED + 6)
    reference = evaluator.at(other.pixels, other.landmarks)
    latents = pipe.vae.encode(shown.pixels.to(world.device())).latent_dist.mean
    prompts = embed_prompts(base, captions(torch.zeros_like(shown.scene), shown.scene, who))
    schedule = noise_schedule(pipe.scheduler)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(SEED + 7)).to(world.device())
    figures = {}
    for t in TIMESTEPS:
        times = torch.full((PEOPLE,), t, device=world.device())
        noised = add_noise(schedule, latents, noise, times)
        for scale in (0.0, 0.5, 1.0):
            pipe.unet.set_adapters([world.FAST_CHILD], weights=[scale])
            clean = clean_latents(schedule, noised, predict(pipe.unet, noised, times, prompts), times)
            seen = evaluator.at(preview_vae.decode(clean).sample, shown.landmarks)
            figures[f"preview_{t}_{scale}"] = float((seen * reference).sum(1).mean())
    late = [t for t in TIMESTEPS if t >= 500]
    figures["preview_gain"] = sum(figures[f"preview_{t}_1.0"] - figures[f"preview_{t}_0.0"] for t in late) / len(late)
    return figures


@torch.no_grad()
def measure_adapter(checkpoints: Checkpoints, evaluator: Evaluator, portraits: Path) -> dict[str, float]:
    """The untuned adapter on the validation people: similarity to the person, to a stranger, and between two photos."""
    pipe = world.open_pipeline(checkpoints)
    world.attach_adapter(pipe, checkpoints)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    people = sorted(portraits.iterdir())[:PEOPLE]
    encoder, processor = world.open_image_encoder(checkpoints)
    first, second = ([Image.open(person / f"{i}.jpg").convert("RGB") for person in people] for i in (0, 1))
    features = image_features(encoder, processor(first, return_tensors="pt").pixel_values)
    null = image_features(encoder, torch.zeros(1, 3, SIZE, SIZE))
    drawn: list[Tensor] = []
    for i, seen in enumerate(features):  # diffusers takes one reference a call
        image = [torch.stack([null[0], seen]).unsqueeze(1)]
        prompt = captions_without_names()[i % len(SCENES)]  # a photo
        drawn += sample(pipe, [prompt], ADAPTER_STEPS, GUIDANCE_SCALE, SEED + i, ip_adapter_image_embeds=image)
    pictures = (to_pixels(torch.stack([pil_to_tensor(image) for image in row])) for row in (first, second))
    photo, other = (evaluator.found(pixels)[0] for pixels in pictures)
    queries = evaluator.found(torch.stack(drawn))[0]
    return {
        "adapter_similarity": float((queries * photo).sum(1).mean()),
        "adapter_stranger": float((queries * photo.roll(1, 0)).sum(1).mean()),
        "adapter_ceiling": float((other * photo).sum(1).mean()),
    }


def measure_generative(checkpoints: Checkpoints, portraits: Path) -> dict[str, float]:
    """Every figure of the generative parts."""
    evaluator, preview_vae, pipe = (
        Evaluator(checkpoints),
        world.open_preview_vae(checkpoints),
        world.open_pipeline(checkpoints),
    )
    figures = measure_autoencoder(pipe, preview_vae, evaluator)
    train_scheduler = pipe.scheduler
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(train_scheduler.config)
    figures |= measure_sampling(pipe, evaluator, STEPS, GUIDANCE_SCALE, "base")
    fast = checkpoints.generator
    steps, scale = fast.num_inference_steps, fast.guidance_scale
    figures |= measure_sampling(world.open_generator(checkpoints), evaluator, steps, scale, "fast_child")
    pipe.scheduler = train_scheduler
    world.attach_fast_child(pipe, checkpoints)
    figures |= measure_previews(pipe, preview_vae, evaluator, Path(checkpoints.base))
    return figures | measure_adapter(checkpoints, evaluator, portraits)


def write_card(checkpoints: Checkpoints, root: Path) -> None:
    """Measure everything and write `metrics.json` and the table of `MODEL_CARD.md` below `root`."""
    figures = measure_faces(Path(checkpoints.faces.report).parent, checkpoints.faces.detection_size)
    figures |= {f"clip_{name}": value for name, value in measure_scorer(root / "clip", PEOPLE, SEED).items()}
    figures |= measure_generative(checkpoints, root / "portraits" / "validation")
    write_json(root / "metrics.json", figures)
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in sorted(figures.items()))
    card = root / "MODEL_CARD.md"
    with atomic(card) as path:
        text = card.read_text(encoding="utf-8").split(MARK)[0]
        path.write_text(f"{text}{MARK}\n\n| figure | value |\n|---|---|\n{rows}\n", encoding="utf-8")
