"""The sampler's loop against diffusers' own call, and what a picture may depend on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lookahead.config import Checkpoints, Evaluate
from lookahead.errors import InputError
from lookahead.evaluation.portraits import read_photo
from lookahead.evaluation.sampling import Condition, draw, encode_photos, encode_prompts, prepare
from lookahead.world import Pipeline, attach_adapter, open_image_encoder, open_pipeline

PROMPTS = [
    "a photo of a person in the snow",
    "a comic drawing of a person on the beach",
    "a photo of a person at sunset",
]


@pytest.fixture(scope="module")
def photos(portraits: Path) -> list[Image.Image]:
    return [Image.fromarray(read_photo(portraits / f"{i:03d}" / "0.jpg")) for i in range(3)]


@pytest.fixture(scope="module")
def pipe(tiny: Checkpoints) -> Pipeline:
    pipe = open_pipeline(tiny)
    attach_adapter(pipe, tiny)
    return pipe


def _conditions(pipe: Pipeline, tiny: Checkpoints, photos: list[Image.Image]) -> tuple[Condition, Condition]:
    text, pooled, free_text, free_pooled = encode_prompts(pipe, PROMPTS[: len(photos)])
    image, free_image = encode_photos(*open_image_encoder(tiny), photos)
    one = Condition(free_text, free_pooled, free_image)
    return Condition(text, pooled, image), Condition(
        *(x.expand(len(photos), *x.shape[1:]) for x in (one.text, one.pooled, one.image))
    )


@pytest.mark.parametrize(
    "sampler",
    ["DPMSolverMultistepScheduler", "EulerDiscreteScheduler", "DDIMScheduler", "EulerAncestralDiscreteScheduler"],
)
def test_equals_diffusers_own_call(
    sampler: str, pipe: Pipeline, tiny: Checkpoints, quick: Evaluate, photos: list[Image.Image]
) -> None:
    settings = quick.model_copy(update={"sampler": sampler, "steps": 4, "adapter_scale": 0.7})
    prepare(pipe, settings)
    given, free = _conditions(pipe, tiny, photos[:1])
    ours = draw(pipe, given, free, [5], settings)
    encoder, processor = open_image_encoder(tiny)
    pipe.register_modules(image_encoder=encoder, feature_extractor=processor)
    theirs = pipe(
        PROMPTS[0],
        ip_adapter_image=photos[0],
        num_inference_steps=4,
        guidance_scale=settings.guidance,
        generator=[torch.Generator().manual_seed(5)],
        output_type="np",
    ).images
    np.testing.assert_allclose((ours[0].permute(1, 2, 0) + 1) / 2, theirs[0], atol=2e-5)


def test_a_picture_does_not_depend_on_its_batch(
    pipe: Pipeline, tiny: Checkpoints, quick: Evaluate, photos: list[Image.Image]
) -> None:
    prepare(pipe, quick)
    given, free = _conditions(pipe, tiny, photos)
    together = draw(pipe, given, free, [1, 2, 3], quick)
    for i in range(3):
        alone = Condition(given.text[i : i + 1], given.pooled[i : i + 1], given.image[i : i + 1])
        nothing = Condition(free.text[:1], free.pooled[:1], free.image[:1])
        torch.testing.assert_close(draw(pipe, alone, nothing, [i + 1], quick)[0], together[i], atol=1e-4, rtol=0)


def test_same_seed_same_picture_and_other_seed_not(
    pipe: Pipeline, tiny: Checkpoints, quick: Evaluate, photos: list[Image.Image]
) -> None:
    prepare(pipe, quick)
    conditions = _conditions(pipe, tiny, photos[:1])
    assert torch.equal(draw(pipe, *conditions, [1], quick), draw(pipe, *conditions, [1], quick))
    assert not torch.allclose(draw(pipe, *conditions, [1], quick), draw(pipe, *conditions, [2], quick), atol=1e-2)


def test_reference_and_prompt_matter(
    pipe: Pipeline, tiny: Checkpoints, quick: Evaluate, photos: list[Image.Image]
) -> None:
    prepare(pipe, quick)
    given, free = _conditions(pipe, tiny, photos)
    plain = draw(pipe, given, free, [1, 1, 1], quick)
    other_image = Condition(given.text, given.pooled, given.image.roll(1, 0))
    other_text = Condition(given.text.roll(1, 0), given.pooled.roll(1, 0), given.image)
    for changed in (other_image, other_text):
        assert (draw(pipe, changed, free, [1, 1, 1], quick) - plain).abs().amax((1, 2, 3)).min() > 1e-3


def test_guidance_of_one_is_the_conditional_prediction(
    pipe: Pipeline, tiny: Checkpoints, quick: Evaluate, photos: list[Image.Image]
) -> None:
    unguided = quick.model_copy(update={"guidance": 1.0})
    prepare(pipe, unguided)
    given, free = _conditions(pipe, tiny, photos[:1])
    pictures = draw(pipe, given, free, [1], unguided), draw(pipe, given, given, [1], unguided)
    torch.testing.assert_close(*pictures, atol=1e-4, rtol=0)


def test_attaching_again_leaves_nothing_behind(
    pipe: Pipeline, tiny: Checkpoints, quick: Evaluate, photos: list[Image.Image]
) -> None:
    prepare(pipe, quick)
    conditions = _conditions(pipe, tiny, photos[:1])
    expected = draw(pipe, *conditions, [1], quick)
    prepare(pipe, quick.model_copy(update={"adapter_scale": 0.1}))
    assert not torch.allclose(draw(pipe, *conditions, [1], quick), expected, atol=1e-3)
    attach_adapter(pipe, tiny)
    prepare(pipe, quick)
    assert torch.equal(draw(pipe, *conditions, [1], quick), expected)


def test_no_photo_is_a_picture_of_zeros(tiny: Checkpoints, photos: list[Image.Image]) -> None:
    encoder, processor = open_image_encoder(tiny)
    features, nothing = encode_photos(encoder, processor, photos)
    assert features.shape[0] == 3 and nothing.shape == features[:1].shape
    zeros = torch.zeros(1, 3, encoder.config.image_size, encoder.config.image_size)
    torch.testing.assert_close(nothing, encoder(zeros, output_hidden_states=True).hidden_states[-2])


def test_unknown_sampler(pipe: Pipeline, quick: Evaluate) -> None:
    with pytest.raises(InputError, match="FastScheduler"):
        prepare(pipe, quick.model_copy(update={"sampler": "FastScheduler"}))
