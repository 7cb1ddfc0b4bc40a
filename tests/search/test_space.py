"""What may be searched, what a trial draws, and what is refused before the first one."""

import optuna
import pytest
from pydantic import ValidationError

from lookahead.config import read_params, with_overrides
from lookahead.errors import InputError
from lookahead.search.objective import as_overrides, check_space, present, suggest
from tests.modules import ROOT
from tests.search.conftest import CHOICE, FLOAT, SPACE, make_search


def test_the_committed_spaces_are_possible() -> None:
    params = read_params(ROOT / "params.yaml")
    assert set(params.studies.search) == set(params.worlds)
    for name, search in params.studies.search.items():
        check_space(search, params.worlds[name].train)


def test_a_conditional_parameter_is_drawn_only_under_its_condition(world) -> None:
    search, study = make_search(), optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    seen = []
    for _ in range(30):
        values = suggest(search.space, study.ask())
        assert ("power" in values) == (values["density"] == "power")
        assert 1 <= values["redraw"] <= 9 and isinstance(values["redraw"], int)
        train = with_overrides(world.train, as_overrides(search.space, values))
        assert train.noise_density.strength == values.get("power", world.train.noise_density.strength)
        seen.append(values["density"])
    assert set(seen) == {"uniform", "cosine", "power"}


def test_trial_0_is_params_yaml(world) -> None:
    values = present(make_search().space, world.train)
    assert values == {"low": 0.1, "high": 1.0, "density": "cosine", "redraw": 3}
    assert with_overrides(world.train, as_overrides(make_search().space, values)) == world.train


def odd(path: str, low: float, high: float) -> dict[str, object]:
    return {"odd": FLOAT | {"path": path, "low": low, "high": high}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (odd("lookahead.wait", 0.1, 1.0), r"train\.lookahead\.wait is no parameter"),
        (odd("lookahead", 0.1, 1.0), r"odd = (0\.1|1\.0)"),
        (odd("lookahead.lora_scale.probability_of_one", 0.0, 1.5), "odd = 1.5"),
        (odd("ema_decay", 0.0, 1.0), "odd = 1.0"),
        (odd("learning_rate", 0.1, 0.2), "outside 'odd'"),
        (odd("seed", 0.0, 9.0), "every trial sets itself"),
        (odd("lookahead.lora_scale.low", 0.0, 0.5), "separate them by `when`"),
        ({"odd": CHOICE | {"path": "batch_size", "choices": [2, "many"]}}, "batch_size"),
        ({"low": SPACE["low"] | {"high": 0.9}}, r"low = 0\.9, high = 0\.5"),  # the two ranges can cross
    ],
)
def test_an_impossible_space_is_refused(world, change: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        check_space(make_search(space=SPACE | change, contours=[]), world.train)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"space": {"low": SPACE["low"] | {"low": 0.6}}}, "low has to be below high"),
        ({"space": {"low": SPACE["low"] | {"log": True}}}, "begin above 0"),
        ({"space": {"power": SPACE["power"]}}, "name an entry above it"),
        ({"contours": [["low", "none"]]}, "not in the space"),
        ({"confirm": {"settings": 1, "seeds": [3], "split": "validation", "people": 2}}, "confirm with fresh ones"),
        ({"split": "test"}, "'search' or 'validation'"),
        ({"confirm": {"settings": 1, "seeds": [11], "split": "test", "people": 2}}, "'search' or 'validation'"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make_search(**({"contours": []} | change))
