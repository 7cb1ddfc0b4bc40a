"""Lookahead guidance on the tiny world: each picture comes nearer to its own face, and nothing else changes."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import Tensor

from lookahead.config import Checkpoints, Steering
from lookahead.method.lookahead import identity_distance
from lookahead.method.preview import lcm_preview
from lookahead.models.fast_child import child_at, lora_layers, switch_off
from lookahead.sampling.conditions import Condition, embed_prompts, encode_photos, reference_pixels
from lookahead.sampling.loop import Callback, draw_latents, image_guidance, predict, prepare, start_noise
from lookahead.sampling.steering import Guide, Identifier, open_guide, open_identifier
from lookahead.world import (
    FAST_CHILD,
    Pipeline,
    attach_adapter,
    attach_fast_child,
    open_image_encoder,
    open_pipeline,
)
from tests.tiny import with_bright_previews

SETTINGS = Steering(strength=0.3, timestep_min=0, timestep_max=999, preview_steps=1)
BOTH = [0, 1]


class Studio:
    """The tiny pipeline, two people and what is needed to draw them."""

    def __init__(self, world: Checkpoints, photos: list[Image.Image]) -> None:
        self.pipe: Pipeline = open_pipeline(world)
        attach_fast_child(self.pipe, world)
        attach_adapter(self.pipe, world)
        self.child = lora_layers(self.pipe.unet, FAST_CHILD)
        switch_off(self.child)
        self.identifier: Identifier = open_identifier(world)
        prompts, empty = embed_prompts(self.pipe, ["a photo of a person in the snow"] * 2)
        image, nothing = encode_photos(*open_image_encoder(world), photos)
        self.given = Condition(prompts, image)
        self.free = Condition(empty, nothing)
        pixels = reference_pixels(self.pipe, photos)
        self.aims = torch.cat([self.identifier.face(pixels[person : person + 1]) for person in BOTH])

    def guide(self, settings: Steering) -> Guide:
        return open_guide(self.pipe, self.child, self.identifier, settings)

    def draw(
        self, settings: Steering | None, people: list[int] = BOTH, callback: Callback | None = None, steps: int = 6
    ) -> Tensor:
        """Latents of some of the two people, in one batch; each has a noise of its own."""
        sampler = prepare(self.pipe, "DPMSolverMultistepScheduler", steps, 1.0, image_guidance(2.0))
        if settings is not None:
            sampler = replace(sampler, steer=self.guide(settings).steer)
        generators = [torch.Generator().manual_seed(person + 1) for person in people]
        given = self.given.map(lambda every: every[people])
        free = self.free.map(lambda one: one.expand(len(people), *one.shape[1:]))
        noise = start_noise(self.pipe, generators)
        return draw_latents(sampler, given, free, noise, None, generators, self.aims[people], callback)

    def distances(self, latents: Tensor, aims: Tensor) -> Tensor:
        with torch.no_grad():
            embeddings, found = self.identifier.embed(self.identifier.decode(latents))
        assert found.all()
        return identity_distance(embeddings, aims)


@pytest.fixture(scope="module")
def studio(tiny_world, photos, tmp_path_factory) -> Studio:
    return Studio(with_bright_previews(tiny_world, tmp_path_factory.mktemp("bright")), photos[:2])


def test_large_pictures_are_steered_one_by_one_to_the_same_gradient(studio: Studio) -> None:
    guide, vae, seen = studio.guide(SETTINGS), studio.identifier.preview_vae, list[int]()
    noisy, t = start_noise(studio.pipe, [torch.Generator().manual_seed(i) for i in BOTH]), torch.tensor([600, 600])
    together = guide.gradient(noisy, t, studio.given, studio.aims)
    hook = studio.pipe.unet.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    vae.enable_slicing()
    try:
        apart = guide.gradient(noisy, t, studio.given, studio.aims)
    finally:
        vae.disable_slicing()
        hook.remove()
    assert seen == [1, 1] and together.abs().max() > 0
    torch.testing.assert_close(apart, together, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("preview_steps", [1, 2])
def test_it_lowers_each_distance_to_the_own_aim(studio, preview_steps):
    steered = studio.draw(SETTINGS.model_copy(update={"preview_steps": preview_steps}))
    before, after = (studio.distances(latents, studio.aims) for latents in (studio.draw(None), steered))
    assert (after < before - 0.01).all(), (before, after)
    crossed = studio.distances(steered, studio.aims.flip(0))
    assert (after < crossed).all(), (after, crossed)


def test_a_picture_does_not_depend_on_its_batch(studio):
    """In two steps: in more, rounding meets a step at which the random detector hesitates between two boxes."""
    together = studio.draw(SETTINGS, steps=2)
    apart = torch.cat([studio.draw(SETTINGS, [person], steps=2) for person in BOTH])
    torch.testing.assert_close(together, apart, atol=1e-3, rtol=0)
    assert (together - studio.draw(None, steps=2)).abs().amax((1, 2, 3)).min() > 0.1


def test_outside_its_timesteps_nothing_changes(studio):
    never = SETTINGS.model_copy(update={"timestep_min": 0, "timestep_max": 0})
    assert torch.equal(studio.draw(never), studio.draw(None))


def test_a_preview_without_a_face_has_no_gradient_and_leaves_the_others_alone(tiny_world, studio):
    """A preview decoder just so dark that the tiny detector, which goes by brightness, sees a face in one of two."""
    noisy, t = studio.draw(None, steps=2) * torch.tensor([1.0, 10.0]).view(2, 1, 1, 1), torch.tensor([500, 500])
    guide, dim = studio.guide(SETTINGS), open_identifier(tiny_world)
    assert guide.gradient(noisy, t, studio.given, studio.aims).abs().amax((1, 2, 3)).min() > 0
    with torch.no_grad(), child_at(studio.child, FAST_CHILD, 1.0):
        clean = lcm_preview(guide.schedule, noisy, predict(studio.pipe, noisy, t, [studio.given])[0], t)
        for _ in range(200):
            found = dim.embed(dim.decode(clean))[1]
            if found.any():
                break
            dim.preview_vae.decoder.layers[-1].bias += 0.002
    assert found.sum() == 1
    dark = replace(guide, identifier=dim)
    gradient = dark.gradient(noisy, t, studio.given, studio.aims)
    assert gradient[found].abs().max() > 0 and not gradient[~found].any()
    given = studio.given.map(lambda every: every[found])
    alone = dark.gradient(noisy[found], t[found], given, studio.aims[found])
    torch.testing.assert_close(gradient[found], alone, atol=1e-6, rtol=1e-3)
    with torch.no_grad():
        dim.preview_vae.decoder.layers[-1].bias -= 1
    assert not dark.gradient(noisy, t, studio.given, studio.aims).any()


def test_the_callback_sees_every_step(studio):
    seen: list[tuple[int, int, Tensor]] = []
    drawn = studio.draw(None, callback=lambda *step: seen.append(step))
    assert [step[:2] for step in seen] == list(enumerate(studio.pipe.scheduler.timesteps.tolist()))
    assert len(seen) == 6 and torch.equal(seen[-1][2], drawn)
