"""How numbers, intervals and samples are written."""

import math

import pandas as pd
import pytest

from lookahead.report.formats import Estimate, estimate_table, markdown, number, read_estimates, sample

NAN = math.nan


def test_numbers() -> None:
    assert [number(0.25), number(-0.25), number(NAN), number(0.5, ".1f")] == ["0.250", "−0.250", "–", "0.5"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Estimate(0.5, 0.4, 0.6, 9, 1), "0.500 [0.400 to 0.600]"),
        (Estimate(-0.00001, NAN, NAN, 1, 1), "0.000"),
        (Estimate(NAN, NAN, NAN, 0, 1), "–"),
        (Estimate(0.06, 0.04, 0.08, 9, 3, "higher"), "+0.060 [+0.040 to +0.080], higher"),
        (Estimate(0.06, 0.04, 0.08, 9, 1, "not significant"), "+0.060 [+0.040 to +0.080], not significant"),
        (
            Estimate(0.01, -0.01, 0.03, 9, 1, "not significant", non_inferior=True),
            "+0.010 [−0.010 to +0.030], not significant, not inferior",
        ),
    ],
)
def test_the_verdict_decides_and_not_the_interval(value: Estimate, text: str) -> None:
    assert str(value) == text


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        ([(9, 0)], "9 people, no training"),
        ([(9, 0), (9, 1)], "9 people, this training"),
        ([(9, 3), (7, 3), (8, 3)], "7 to 9 people, 3 seeds"),
        ([], ""),
    ],
)
def test_a_row_says_how_many_people_and_seeds_it_is_over(samples: list[tuple[int, int]], text: str) -> None:
    assert sample([None, *(Estimate(0.5, 0.4, 0.6, *one) for one in samples)]) == text


def test_tables_as_markdown() -> None:
    table = estimate_table({"a": [Estimate(0.5, 0.4, 0.6, 9, 1)], "long": [None]}, ["identity"])
    assert [line.replace(":", "-").split() for line in markdown(table).splitlines()] == [
        line.split()
        for line in (
            "|      | identity               | sample                  |",
            "|------|------------------------|-------------------------|",
            "| a    | 0.500 [0.400 to 0.600] | 9 people, this training |",
            "| long |                        |                         |",
        )
    ]


def test_frames_are_read_by_name_sampler_group_and_metric() -> None:
    numbers = {"mean": 0.1, "low": 0.0, "high": 0.2, "people": 5, "seeds": 1}
    keys = {"sampler": "full", "group": "all", "metric": "identity"}
    means = pd.DataFrame([{"cell": cell} | keys | numbers for cell in ("adapter", "tuned")])
    found = read_estimates(means, "cell", {"adapter"})
    assert [found[cell, "full", "all", "identity"].seeds for cell in ("adapter", "tuned")] == [0, 1]
    rows = pd.DataFrame({"contrast": list("abc"), "verdict": "higher", "non_inferior": [True, False, None]})
    changes = read_estimates(rows.assign(**keys, **numbers), "contrast")
    assert [changes[name, "full", "all", "identity"].non_inferior for name in "abc"] == [True, False, False]
