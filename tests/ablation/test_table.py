"""The ablation's statistics on numbers whose answer is known."""

import numpy as np
import pytest

from lookahead.ablation.table import against, as_json, as_markdown, make_lines, two_level_interval
from lookahead.config import Ablation, Row

FIGURES = [f"{sampler}.{name}" for sampler in ("full", "fast") for name in ("identity", "prompt", "style", "leak")]


def study() -> Ablation:
    rows = {
        "untuned": Row(label="untuned", after=None, tuned="nothing", changes={}),
        "first": Row(label="first", after=None, tuned="train", changes={"lookahead.weight": 0.0}),
        "second": Row(label="second", after="first", tuned="train", changes={"lookahead.weight": 0.1}),
        "side": Row(label="side", after="first", tuned="train", changes={"photos_only": True}),
    }
    return Ablation(seeds=[0, 1, 2], people=40, photo_prompts=1, steps=2, fast_steps=4, grid_people=2, rows=rows)


def cells() -> dict[str, dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    people = generator.normal(0, 0.2, 40)  # what rows share, which pairing takes out
    means = {"untuned": 0.1, "first": 0.1, "second": 0.2, "side": 0.1}
    return {
        row: {name: mean + people + generator.normal(0, 0.02, (3, 40)) for name in FIGURES}
        for row, mean in means.items()
    }


def test_rows_are_compared_with_the_one_they_come_after_or_the_one_above():
    assert [against(study(), name) for name in study().rows] == [None, "untuned", "first", "first"]


def test_changes_of_earlier_rows_come_first():
    assert study().changes("second") == {"lookahead.weight": 0.1}
    assert study().changes("side") == {"lookahead.weight": 0.0, "photos_only": True}


def test_a_difference_is_found_and_no_difference_is_said():
    lines = {line.name: line for line in make_lines(cells(), study(), 1000, 0)}
    assert lines["untuned"].differences == {}
    mean, low, high = lines["second"].differences["full.identity"].measured()
    assert low > 0 and mean == pytest.approx(0.1, abs=0.01) and high - low < 0.03
    assert lines["first"].gains == {} and lines["second"].gains == lines["second"].differences
    mean, _, _ = lines["side"].gains["full.identity"].measured()
    assert mean == pytest.approx(lines["side"].differences["full.identity"].measured()[0])  # it comes after the first
    _, low, high = lines["side"].differences["full.identity"].measured()
    assert low < 0 < high
    _, low, high = lines["second"].means["full.identity"].measured()
    assert high - low > 0.08  # people differ much more than rows do
    assert len(lines["second"].by_seed["full.identity"]) == 3
    table = as_markdown(list(lines.values())).splitlines()
    assert len(table) == 6 and table[5].count("(no difference)") == 3 and "no difference" not in table[4]
    assert as_json(list(lines.values()))["second"]["against"] == "first"


def test_seeds_that_disagree_widen_the_interval():
    """Three seeds at -1, 0 and 1: people alone would give an interval of nothing, seeds one that holds 0."""
    values = np.array([[-1.0], [0.0], [1.0]]).repeat(50, 1)
    mean, low, high = two_level_interval(values, 2000, 0).measured()
    assert mean == 0 and low < -0.5 and high > 0.5


def test_one_seed_is_the_bootstrap_over_people():
    """Against the normal approximation: mean ± 1.96 s / sqrt(n)."""
    values = np.random.default_rng(1).normal(0.3, 1.0, (1, 400))
    mean, low, high = two_level_interval(values, 4000, 0).measured()
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.02)
