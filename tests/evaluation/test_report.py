"""What the report says for results of either sign, and how it writes numbers."""

from __future__ import annotations

import pytest

from lookahead.evaluation.metrics import METRICS, SPREAD
from lookahead.evaluation.statistics import Interval
from lookahead.report.glossary import MEANINGS, SCALE
from lookahead.report.pages import no_difference, number, plain, short, signed
from lookahead.report.report import sign, verdict

UP, DOWN, OPEN = Interval(0.06, 0.04, 0.08), Interval(-0.03, -0.05, -0.01), Interval(0.01, -0.01, 0.03)


@pytest.mark.parametrize(("value", "expected"), [(UP, 1), (DOWN, -1), (OPEN, 0), (Interval(None, None, None), 0)])
def test_sign_needs_an_interval_that_excludes_zero(value: Interval, expected: int) -> None:
    assert sign(value) == expected


@pytest.mark.parametrize(("value", "said"), [(UP, False), (DOWN, False), (OPEN, True), (Interval(0, 0, 0), True)])
def test_no_difference_is_said_where_the_interval_holds_zero(value: Interval, said: bool) -> None:
    assert no_difference(value.low, value.high) == said == (sign(value) == 0)


def test_verdict_tells_each_outcome() -> None:
    won = verdict({"identity": UP, "prompt": DOWN})
    assert won.startswith("The lookahead loss raises identity: +0.060 (+0.040 to +0.080).")
    assert "It lowers prompt alignment: −0.030" in won
    assert "does not measurably change identity" in verdict({"identity": OPEN, "prompt": UP})


def test_numbers() -> None:
    assert (short(0.256), plain(0.25), number(-0.25), signed(0.25)) == ("0.26", "0.250", "−0.2500", "+0.250")
    assert short(-0.001) == "0.00"
    assert {form(None) for form in (short, plain, number, signed)} == {"–"}


def test_every_metric_is_explained() -> None:
    assert set(MEANINGS) == set(METRICS | SPREAD)
    assert set(SCALE) == {"same_person", "stranger", "base_diversity", "layout_chance"}
