"""Means and contrasts of a long table whose answers are known."""

import numpy as np
import pandas as pd
import pytest

from lookahead.errors import InputError
from lookahead.evaluation.contrasts import Contrast, contrasts, summary

PEOPLE = 30
PAIR = [Contrast("gain", "tuned", "plain")]


def rows(cell: str, level: float, seeds: tuple[int, ...] = (0, 1, 2), people: int = PEOPLE) -> pd.DataFrame:
    """Two pictures a person and seed; people differ far more than cells do."""
    generator = np.random.default_rng(0)
    shared = 10 * generator.normal(size=people)
    made = [
        {"cell": cell, "sampler": "full", "training_seed": seed, "person": person, "style": style}
        | {"identity": shared[person] + level + 0.01 * noise.normal(), "prompt": 1.0}
        for seed in seeds
        for noise in [np.random.default_rng([seed + 1, len(cell)])]
        for person in range(people)
        for style in ("photo", "oil")
    ]
    return pd.DataFrame(made)


def test_a_summary_has_a_row_a_cell_sampler_group_and_metric() -> None:
    table = pd.concat([rows("tuned", 0.1), rows("plain", 0.0, (-1,))])
    found = summary(table, ("identity", "prompt"))
    assert found.columns.tolist() == ["cell", "sampler", "group", "metric", "mean", "low", "high", "people", "seeds"]
    assert found[["cell", "group", "metric", "people", "seeds"]].to_numpy().tolist() == [
        ["tuned", "all", "identity", PEOPLE, 3],
        ["tuned", "all", "prompt", PEOPLE, 3],
        ["plain", "all", "identity", PEOPLE, 1],
        ["plain", "all", "prompt", PEOPLE, 1],
    ]
    assert found["mean"][0] == pytest.approx(table[table["cell"] == "tuned"]["identity"].mean())
    assert set(summary(table, ("identity",), "style")["group"]) == {"photo", "oil"}


@pytest.mark.parametrize("seeds", [(0, 1, 2), (-1,)], ids=["seed by seed", "with the untrained"])
def test_pairing_shows_a_small_gain_that_everybody_has(seeds: tuple[int, ...]) -> None:
    found = contrasts(pd.concat([rows("tuned", 0.1), rows("plain", 0.0, seeds)]), PAIR, ("identity", "prompt"))
    assert found["mean"][0] == pytest.approx(0.1, abs=0.01) and found["high"][0] - found["low"][0] < 0.1
    assert found["verdict"].tolist() == ["higher", "not significant"]
    assert found[["people", "seeds"]].to_numpy().tolist() == [[PEOPLE, 3]] * 2
    turned = contrasts(pd.concat([rows("tuned", -0.1), rows("plain", 0.0, seeds)]), PAIR, ("identity",))
    assert turned["verdict"].tolist() == ["lower"]


def test_verdicts_are_corrected_for_all_comparisons_of_a_metric() -> None:
    """A difference that alone is significant is not among a hundred others; another metric's do not count."""
    generator = np.random.default_rng(1)
    first = {"sampler": "full", "training_seed": 0, "person": range(PEOPLE)}
    cells = {f"c{i}": generator.normal(size=PEOPLE) for i in range(100)}
    cells["c0"] += 0.5 - cells["c0"].mean()
    rows = [pd.DataFrame(first | {"cell": name, "a": values, "b": values}) for name, values in cells.items()]
    table = pd.concat([*rows, pd.DataFrame(first | {"cell": "plain", "a": 0.0, "b": 0.0})])
    pairs = [Contrast(name, name, "plain") for name in cells]
    assert contrasts(table, pairs[:1], ("a", "b"))["verdict"].tolist() == ["higher"] * 2
    many = contrasts(table, pairs, ("a",))
    assert many["p"][0] < 0.05 and (many["p"] < 0.05).sum() > 1 and set(many["verdict"]) == {"not significant"}


def test_no_worse_needs_a_margin() -> None:
    table = pd.concat([rows("tuned", -0.005), rows("plain", 0.0)])
    found = contrasts(table, PAIR, ("identity", "prompt"), margin={"identity": 0.05})
    assert found["non_inferior"].tolist() == [True, None]
    assert contrasts(table, PAIR, ("identity",), margin={"identity": 0.001})["non_inferior"].tolist() == [False]


def test_what_was_not_measured_has_no_verdict_and_does_not_count() -> None:
    table = pd.concat([rows("tuned", 0.1), rows("plain", 0.0)]).assign(copied=np.nan)
    found = contrasts(table, PAIR, ("copied", "identity"))
    assert found["verdict"].tolist() == ["not measured", "higher"] and found["people"].tolist() == [0, PEOPLE]
    assert found["p_holm"][1] == found["p"][1]


def test_a_pair_without_both_cells_is_left_out_and_an_unpaired_one_is_refused() -> None:
    assert contrasts(rows("tuned", 0.0), PAIR, ("identity",)).empty
    with pytest.raises(InputError, match=r"same training seeds twice: tuned has \[0, 1, 2\], plain has \[0, 1\]"):
        contrasts(pd.concat([rows("tuned", 0.0), rows("plain", 0.0, (0, 1))]), PAIR, ("identity",))
    other = rows("plain", 0.0)
    strangers = other.assign(person=other["person"] + 1)
    for unpaired in (rows("plain", 0.0, people=29), strangers):  # also where they are as many
        with pytest.raises(InputError, match="same people twice: only one of tuned and plain has"):
            contrasts(pd.concat([rows("tuned", 0.0), unpaired]), PAIR, ("identity",))
