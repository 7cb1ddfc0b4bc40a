"""Which settings are confirmed, and which confirmed one is recommended, from scores by setting, seed and person."""

import numpy as np
import optuna
import pytest

from lookahead.errors import InputError
from lookahead.search.results import compare
from lookahead.search.run import preferred
from tests.search.conftest import make_search

SEEDS, MARGIN = [101, 102, 103], {"identity": 0.01, "prompt": 0.02}


def scores(identity: float, prompt: float, by_seed: list[float], people: int = 40) -> list[dict[str, list[float]]]:
    """One dictionary a seed, whose effect is added to identity; people differ a little."""
    noise = np.random.default_rng(int(abs(identity) * 1e4)).normal(0, 0.01, people)
    return [
        {"identity": (identity + effect + noise).tolist(), "prompt": (prompt + noise).tolist()} for effect in by_seed
    ]


def by_setting(*settings: list[dict[str, list[float]]]) -> dict[tuple[int, int], dict[str, list[float]]]:
    return {(number, seed): own for number, rows in enumerate(settings) for seed, own in zip(SEEDS, rows, strict=True)}


def test_recommended_is_better_in_one_figure_and_not_inferior_in_the_other() -> None:
    base = scores(0.50, 0.90, [0.0, 0.001, -0.001])
    better, forgetful = scores(0.55, 0.899, [0.001, 0.0, 0.0]), scores(0.60, 0.80, [0.0, 0.0, 0.001])
    found = compare(by_setting(base, better, forgetful), [0, 1, 2], SEEDS, MARGIN)
    assert found.recommended == 1  # the other one has the higher identity, and loses a tenth of the prompts
    assert set(found.contrasts["verdict"]) <= {"higher", "lower", "not significant"}
    assert compare(by_setting(base, base), [0, 1], SEEDS, MARGIN).recommended == 0


def test_a_gain_that_depends_on_the_seed_is_not_significant() -> None:
    """Seeds averaged first, with intervals over people alone, would recommend it."""
    base = scores(0.50, 0.90, [0.0, 0.0, 0.0])
    lucky = scores(0.5201, 0.90, [0.05, -0.04, -0.01])
    found = compare(by_setting(base, lucky), [0, 1], SEEDS, MARGIN)
    identity = found.contrasts.set_index("metric").loc["identity"]
    assert identity["mean"] == pytest.approx(0.02, abs=0.005) and identity["verdict"] == "not significant"
    assert found.recommended == 0 and identity["seeds"] == 3


def test_settings_that_lack_a_seed_are_left_out() -> None:
    rows = by_setting(scores(0.5, 0.9, [0.0] * 3), scores(0.6, 0.9, [0.0] * 3))
    rows.pop((1, 102))
    assert compare(rows, [0, 1], SEEDS, MARGIN).recommended == 0
    rows.pop((0, 101))
    with pytest.raises(InputError, match="no setting could be confirmed"):
        compare(rows, [0, 1], SEEDS, MARGIN)


@pytest.mark.parametrize(("mode", "expected"), [("pareto", [2, 4]), ("constrained", [2, 3])])
def test_preferred_are_those_within_the_tolerated_loss_by_identity(mode: str, expected: list[int]) -> None:
    figures = [(0.50, 0.90), (0.40, 0.80), (0.60, 0.90), (0.55, 0.90), (0.70, 0.85)]
    study = optuna.create_study(directions=["maximize"] * (2 if mode == "pareto" else 1))
    for identity, prompt in figures:
        attributes = {"identity": identity, "prompt": prompt}
        values = [identity, prompt] if mode == "pareto" else [identity]
        study.add_trial(optuna.trial.create_trial(values=values, user_attrs=attributes))
    confirm = {"settings": 2, "seeds": [11], "split": "validation", "people": 2}
    assert preferred(study, make_search(mode=mode, confirm=confirm), floor=0.88) == expected
