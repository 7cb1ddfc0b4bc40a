"""Lookahead guidance on the tiny world: the picture comes nearer to the face, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from PIL import Image

from lookahead.config import Checkpoints, Steering
from lookahead.method.diffusion import NoiseSchedule
from lookahead.method.lookahead import identity_distance
from lookahead.models.fast_child import lora_layers, switch_off
from lookahead.sampling.conditions import Condition, embed_prompts, encode_photos
from lookahead.sampling.loop import draw_latents, image_guidance, prepare, start_noise
from lookahead.sampling.steering import Guide, Identifier, open_identifier, steering
from lookahead.sampling.watching import watch
from lookahead.world import (
    FAST_CHILD,
    Pipeline,
    attach_adapter,
    attach_fast_child,
    open_image_encoder,
    open_pipeline,
)
from tests.tiny import build_portraits, with_bright_previews

SETTINGS = Steering(strength=0.3, timestep_min=0, timestep_max=999, preview_steps=1)


class Studio:
    """The tiny pipeline, two people and what is needed to draw them."""

    def __init__(self, world: Checkpoints, photos: list[Image.Image]) -> None:
        self.pipe: Pipeline = open_pipeline(world)
        attach_fast_child(self.pipe, world)
        attach_adapter(self.pipe, world)
        self.child = lora_layers(self.pipe.unet, FAST_CHILD)
        switch_off(self.child)
        config = self.pipe.scheduler.config
        self.schedule = NoiseSchedule(self.pipe.scheduler.alphas_cumprod, config.prediction_type)
        self.identifier: Identifier = open_identifier(world)
        prompts, empty = embed_prompts(self.pipe, ["a photo of a person in the snow"] * 2)
        image, nothing = encode_photos(*open_image_encoder(world), photos)
        self.given = Condition(prompts, image)
        self.free = Condition(empty, nothing).map(lambda one: one.expand(2, *one.shape[1:]))
        self.aim = self.identifier.face(self.pipe.image_processor.preprocess(photos[:1]))

    def draw(self, settings: Steering | None) -> torch.Tensor:
        sampler = prepare(self.pipe, "DPMSolverMultistepScheduler", 6, 1.0, image_guidance(2.0))
        if settings is not None:
            guide = Guide(self.pipe, self.child, self.identifier, self.schedule, settings, self.aim)
            watch(self.pipe.scheduler, steering(guide, self.given), None)
        generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        noise = start_noise(self.pipe, generators)
        return draw_latents(sampler, self.given, self.free, noise, None, generators)

    def distances(self, latents: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            embeddings, found = self.identifier.embed(self.identifier.decode(latents))
        assert found.all()
        return identity_distance(embeddings, self.aim.expand(len(embeddings), -1))


@pytest.fixture(scope="module")
def studio(tiny_world: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    folder = build_portraits(tmp_path_factory.mktemp("portraits"), 2)
    bright = with_bright_previews(tiny_world, tmp_path_factory.mktemp("bright"))
    return Studio(bright, [Image.open(folder / f"{i:03d}" / "0.jpg").convert("RGB") for i in range(2)])


@pytest.mark.parametrize("preview_steps", [1, 2])
def test_it_lowers_the_identity_distance(studio: Studio, preview_steps: int) -> None:
    plain = studio.distances(studio.draw(None))
    steered = studio.distances(studio.draw(SETTINGS.model_copy(update={"preview_steps": preview_steps})))
    assert (steered < plain - 0.01).all(), (plain, steered)


def test_outside_its_timesteps_nothing_changes(studio: Studio) -> None:
    never = SETTINGS.model_copy(update={"timestep_min": 0, "timestep_max": 0})
    assert torch.equal(studio.draw(never), studio.draw(None))


def test_a_watched_scheduler_keeps_its_signature_and_tells_its_steps() -> None:
    scheduler = DPMSolverMultistepScheduler()
    scheduler.set_timesteps(3)
    seen: list[tuple[int, int]] = []
    watch(scheduler, None, lambda step, t, latents: seen.append((step, t)))
    latents = torch.zeros(1, 4, 8, 8)
    for t in scheduler.timesteps:
        latents = scheduler.step(torch.ones_like(latents), t, latents, generator=None).prev_sample
    assert seen == list(enumerate(scheduler.timesteps.tolist()))
