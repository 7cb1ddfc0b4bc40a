"""The sampler's loop against diffusers' own call, and what a picture may depend on."""

import numpy as np
import pytest
import torch
from PIL import Image

from lookahead.config import Checkpoints, KVGuidance
from lookahead.models.kv_encoder import KVEncoder, new_kv_encoder
from lookahead.sampling.conditions import Condition, Reference, embed_prompts, encode_photos, reference_latents
from lookahead.sampling.loop import Sampler, draw, image_guidance, kv_guidance, prepare
from lookahead.world import (
    FAST_CHILD,
    Pipeline,
    attach_adapter,
    attach_fast_child,
    detach_adapter,
    open_image_encoder,
    open_pipeline,
)
from tests.pipeline.conftest import moved

PROMPTS = [
    "a photo of a person in the snow",
    "a comic drawing of a person on the beach",
    "a photo of a person at sunset",
]
DPM = "DPMSolverMultistepScheduler"


@pytest.fixture(scope="module")
def pipe(tiny_world: Checkpoints) -> Pipeline:
    pipe = open_pipeline(tiny_world)
    attach_adapter(pipe, tiny_world)
    return pipe


def plainly(pipe: Pipeline, scale: float = 1.0) -> Sampler:
    """Two steps with plain guidance."""
    return prepare(pipe, DPM, 2, scale, image_guidance(2.0))


@pytest.fixture(scope="module")
def conditions(pipe, tiny_world, photos) -> tuple[Condition, Condition]:
    """Of three people, and of nobody."""
    prompts, empty = embed_prompts(pipe, PROMPTS)
    image, no_image = encode_photos(*open_image_encoder(tiny_world), photos)
    free = Condition(empty, no_image).map(lambda one: one.expand(len(photos), *one.shape[1:]))
    return Condition(prompts, image), free


def first(condition: Condition) -> Condition:
    return condition.map(lambda every: every[:1])


@pytest.mark.parametrize(
    "sampler", [DPM, "EulerDiscreteScheduler", "DDIMScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler"]
)
@pytest.mark.parametrize("base", ["tiny_world", "tiny_sd15"])
@pytest.mark.parametrize("fast", [False, True])
def test_equals_diffusers_own_call(sampler, base, fast, photos, request):
    """For both kinds of base, without and with the LCM-LoRA."""
    checkpoints: Checkpoints = request.getfixturevalue(base)
    pipe = open_pipeline(checkpoints)
    if fast:
        attach_fast_child(pipe, checkpoints)
        pipe.set_adapters([FAST_CHILD], [1.0])
    attach_adapter(pipe, checkpoints)
    given, free = embed_prompts(pipe, PROMPTS[:1])
    encoder, processor = open_image_encoder(checkpoints)
    image, no_image = encode_photos(encoder, processor, photos[:1])
    conditions = Condition(given, image), Condition(free, no_image)
    ours = draw(prepare(pipe, sampler, 4, 0.7, image_guidance(2.0)), *conditions, [5])
    pipe.register_modules(image_encoder=encoder, feature_extractor=processor)
    theirs = pipe(
        PROMPTS[0],
        ip_adapter_image=photos[0],
        num_inference_steps=4,
        guidance_scale=2.0,
        generator=[torch.Generator().manual_seed(5)],
        output_type="np",
    ).images
    np.testing.assert_allclose((ours[0].permute(1, 2, 0) + 1) / 2, theirs[0], atol=2e-5)


def test_a_picture_depends_on_its_seed_and_not_on_its_batch(pipe, conditions):
    plain, (given, free) = plainly(pipe), conditions
    together = draw(plain, given, free, [1, 2, 3])
    for i in range(3):
        alone = draw(plain, given.map(lambda x, i=i: x[i : i + 1]), first(free), [i + 1])[0]
        torch.testing.assert_close(alone, together[i], atol=1e-4, rtol=0)
    given, free = first(given), first(free)
    assert torch.equal(draw(plain, given, free, [1]), draw(plain, given, free, [1]))
    assert not torch.allclose(draw(plain, given, free, [1]), draw(plain, given, free, [2]), atol=1e-2)


def test_reference_and_prompt_matter(pipe, conditions):
    plain, (given, free) = plainly(pipe), conditions
    expected = draw(plain, given, free, [1, 1, 1])
    other_image = Condition(given.prompt, given.image.roll(1, 0))
    other_text = Condition(given.prompt.map(lambda every: every.roll(1, 0)), given.image)
    for changed in (other_image, other_text):
        assert (draw(plain, changed, free, [1, 1, 1]) - expected).abs().amax((1, 2, 3)).min() > 1e-3


def test_attaching_again_leaves_nothing_behind(pipe, tiny_world, conditions):
    given, free = map(first, conditions)
    expected = draw(plainly(pipe), given, free, [1])
    assert not torch.allclose(draw(plainly(pipe, scale=0.1), given, free, [1]), expected, atol=1e-3)
    detach_adapter(pipe)
    attach_adapter(pipe, tiny_world)
    assert torch.equal(draw(plainly(pipe), given, free, [1]), expected)


def test_no_photo_is_a_picture_of_zeros(tiny_world, photos):
    encoder, processor = open_image_encoder(tiny_world)
    features, nothing = encode_photos(encoder, processor, photos)
    assert features.shape[0] == 3 and nothing.shape == features[:1].shape
    zeros = torch.zeros(1, 3, encoder.config.image_size, encoder.config.image_size)
    torch.testing.assert_close(nothing, encoder(zeros, output_hidden_states=True).hidden_states[-2])


@pytest.fixture(scope="module")
def kv_pipe(tiny_world) -> tuple[Pipeline, KVEncoder]:
    """A pipeline with a KV-encoder whose LoRAs are not zero."""
    pipe = open_pipeline(tiny_world)
    kv = moved(new_kv_encoder(pipe.unet, 2, 2, seed=0))
    attach_adapter(pipe, tiny_world)
    return pipe, kv


@pytest.fixture(scope="module")
def reference(pipe: Pipeline, photos: list[Image.Image], conditions: tuple[Condition, Condition]) -> Reference:
    return Reference(reference_latents(pipe, photos), conditions[0].prompt)


def with_weights(kv_pipe: tuple[Pipeline, KVEncoder], image: float, both: float, kv: float) -> Sampler:
    guidance = KVGuidance(image=image, both=both, kv=kv)
    return prepare(kv_pipe[0], DPM, 2, 1.0, guidance, kv_pipe[1])


def test_without_weight_the_kv_encoder_never_runs(kv_pipe, conditions, pipe):
    """The fast path, with no reference at all, draws what a pipeline without a KV-encoder draws."""
    calls: list[int] = []
    handle = kv_pipe[1].unet.register_forward_hook(lambda *_: calls.append(1))
    drawn = draw(with_weights(kv_pipe, image=2.0, both=0.0, kv=0.0), *conditions, [1, 2, 3])
    handle.remove()
    assert torch.equal(drawn, draw(plainly(pipe), *conditions, [1, 2, 3]))
    assert calls == []


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_at_a_scale_of_one_the_unconditional_prediction_is_not_computed(weights, kv_pipe, conditions, reference):
    """It cancels (classifier-free guidance): the picture is that of any scale near 1, at one U-Net pass a step."""
    passes: list[int] = []
    handle = kv_pipe[0].unet.register_forward_hook(lambda _, inputs, *__: passes.append(len(inputs[0])))
    drawn = draw(with_weights(kv_pipe, *weights), *conditions, [1, 2, 3], reference)
    handle.remove()
    assert passes == [3, 3]
    near = with_weights(kv_pipe, *(scale * (1 + 1e-6) for scale in weights))
    torch.testing.assert_close(drawn, draw(near, *conditions, [1, 2, 3], reference), atol=1e-4, rtol=0)


@pytest.mark.parametrize("weights", [(0.0, 2.0, 0.0), (0.0, 0.0, 2.0), (3.0, 2.0, 2.0)])
def test_each_condition_shows_the_reference(weights, kv_pipe, conditions, reference):
    """Image tokens with keys and values, these alone, all three of the release: another reference, another picture."""
    sampler, (given, free) = with_weights(kv_pipe, *weights), conditions

    def drawn(given: Condition, reference: Reference) -> torch.Tensor:
        return draw(sampler, given, free, [1, 1, 1], reference)

    expected = drawn(given, reference)
    assert (drawn(given, reference.map(lambda every: every.roll(1, 0))) - expected).abs().amax((1, 2, 3)).min() > 1e-3
    unseen = Condition(given.prompt, given.image.roll(1, 0))  # other image tokens
    differs = (drawn(unseen, reference) - expected).abs().amax((1, 2, 3)) > 1e-3
    assert differs.all() == (weights != (0.0, 0.0, 2.0))


def test_keys_and_values_do_not_mix_people(kv_pipe, conditions, reference):
    sampler = prepare(kv_pipe[0], DPM, 2, 1.0, kv_guidance(2.0), kv_pipe[1])
    together = draw(sampler, *conditions, [1, 2, 3], reference)
    given, free, alone = (x.map(lambda every: every[1:2]) for x in (*conditions, reference))
    torch.testing.assert_close(draw(sampler, given, free, [2], alone)[0], together[1], atol=1e-4, rtol=0)
