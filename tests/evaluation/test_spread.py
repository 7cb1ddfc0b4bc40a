"""Diversity and layout on pictures whose answers are known, and the shots that they are measured on."""

import itertools
from collections import Counter

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from lookahead.config import Diversity, Evaluate
from lookahead.dataset.prompts import read_prompts
from lookahead.evaluation.pictures import Plan, make_plan
from lookahead.evaluation.scores import CELLS, colours, layout, leaking
from lookahead.evaluation.spread import distances, spread_plan


def _pattern(seed: int, side: int = 64) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(40, 216, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def test_mean_distance_is_that_of_all_pairs() -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 6))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = [1 - vectors[i] @ vectors[j] for i, j in itertools.combinations(range(4), 2)]
    assert distances(vectors).mean() == pytest.approx(np.mean(pairs))
    assert distances(np.stack([vectors[0]] * 3)) == pytest.approx([0] * 3)


def test_layout_is_blind_to_brightness_contrast_hue_and_size_and_sees_a_mirror() -> None:
    picture = _pattern(1)
    own = layout(picture)
    assert own.shape == (CELLS**2,) and np.linalg.norm(own) == pytest.approx(1) and own.sum() == pytest.approx(0)
    brighter = ImageEnhance.Brightness(ImageEnhance.Contrast(picture).enhance(0.8)).enhance(0.9)
    assert own @ layout(brighter) > 0.99
    assert own @ layout(picture.convert("L").convert("RGB")) > 0.99
    assert own @ layout(picture.resize((256, 256), Image.Resampling.BICUBIC)) > 0.99
    assert own @ layout(ImageOps.invert(picture)) < -0.99
    assert abs(own @ layout(ImageOps.mirror(picture))) < 0.6
    assert abs(own @ layout(_pattern(2))) < 0.5
    assert layout(Image.new("RGB", (64, 64), "teal")) @ own == 0  # an even picture has none


@pytest.fixture
def plan(quick: Evaluate) -> Plan:
    return make_plan(read_prompts(quick.prompts), quick)


def test_everybody_has_a_photo_and_styles_in_turn_from_every_noise(quick: Evaluate, plan: Plan) -> None:
    settings = quick.model_copy(update={"diversity": Diversity(people=4, prompts=2, seeds=3)})
    spread = spread_plan(plan, settings)
    met = Counter((shot.person, shot.asked[0]) for shot in spread.shots)
    assert set(met.values()) == {3} and len(met) == 8
    assert all((person, plan.styles[0]) in met for person in range(4))
    assert len({style for _, style in met}) == 1 + 4  # another style for each person
    assert len({shot.noise_seed for shot in spread.shots}) == len(spread.shots)


def _dressed(body: int, clothes: int) -> Image.Image:
    """A person, the upper half of a picture, in some clothes."""
    drawn = np.asarray(_pattern(body)).copy()
    drawn[len(drawn) // 2 :] = np.asarray(_pattern(clothes))[len(drawn) // 2 :]
    return Image.fromarray(drawn)


def test_clothes_of_the_reference_leak_and_the_persons_looks_do_not() -> None:
    particular = leaking(_dressed(1, 2), [_dressed(1, 3), _dressed(1, 4)])
    leaks = {clothes: float(colours(_dressed(1, clothes)) @ particular) for clothes in (2, 3, 5)}
    assert leaks[2] > 0.25 and leaks[3] < -0.1
    assert abs(leaks[5]) < 0.1  # clothes that no photo shows
    assert float(colours(_dressed(6, 2)) @ particular) == pytest.approx(leaks[2], abs=0.1)  # on somebody else too
    assert np.isnan(leaking(_pattern(1), [])).all()  # with one photo there is none to tell
