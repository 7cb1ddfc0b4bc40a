"""The numbers of metrics.json against ones worked out by hand, and the keys that others rely on."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from lookahead.evaluation.methods import VARIANTS
from lookahead.evaluation.metrics import (
    METRICS,
    breakdown,
    by_kind,
    flatten,
    joined,
    rows_of,
    scale_of_identity,
    summarise,
)


def _table(people: int = 6) -> pd.DataFrame:
    """Two pictures a person and method; every method is 0.1 more like the reference than the one before it."""
    rows = [
        {"method": method, "person": person, "style": ["photo", "oil"][picture], "scene": "snow"}
        | dict.fromkeys(METRICS.values(), 0.5)
        | {"identity": 0.1 * step + 0.05 * person + 0.01 * picture, "prompt_right": float(picture or person > 2)}
        for step, method in enumerate(VARIANTS)
        for person in range(people)
        for picture in range(2)
    ]
    return pd.DataFrame(rows)


def test_contract_of_keys() -> None:
    """Design, section 5: every method and both comparisons, each number as mean, low and high."""
    metrics = rows_of(summarise(_table(), 100, seed=0))
    assert set(metrics) == {"adapter", "noise_only", "tuned", "difference", "gain"}
    for group in metrics.values():
        assert {"identity", "prompt", "clip_t", "detection_rate"} <= set(group)
        for value in group.values():
            assert set(value) == {"mean", "low", "high"}
            assert value["low"] <= value["mean"] <= value["high"]
    json.dumps(metrics, allow_nan=False)


def test_means_and_paired_differences() -> None:
    metrics = summarise(_table(), 200, seed=0)
    assert metrics["adapter"]["identity"].mean == pytest.approx(0.05 * 2.5 + 0.005)
    assert metrics["adapter"]["prompt"].mean == pytest.approx((1 + 0.5) / 2)
    for name, expected in (("difference", 0.2), ("gain", 0.1)):
        value = metrics[name]["identity"]
        assert [value.mean, value.low, value.high] == pytest.approx([expected] * 3)
    assert metrics["tuned"]["identity"].high - metrics["tuned"]["identity"].low > 0.05


def test_order_of_rows_does_not_matter() -> None:
    table = _table()
    assert summarise(table.sample(frac=1, random_state=1), 100, seed=0) == summarise(table, 100, seed=0)


def test_people_count_equally() -> None:
    """Drawing one person more often does not move the mean by more than that person's own mean."""
    table = _table()
    extra = table[table["person"] == 0]
    assert summarise(pd.concat([table, extra, extra]), 100, seed=0)["tuned"]["identity"].mean == pytest.approx(
        summarise(table, 100, seed=0)["tuned"]["identity"].mean
    )


def test_missing_face_counts_zero_and_is_left_out_of_detected() -> None:
    table = _table()
    lost = (table["method"] == "tuned") & (table["person"] == 0)
    table.loc[lost, ["identity", "detected", "identity_detected"]] = [0.0, 0.0, np.nan]
    metrics = summarise(table, 100, seed=0)
    assert metrics["tuned"]["detection_rate"].mean == pytest.approx(0.5 * 5 / 6)
    assert metrics["tuned"]["identity_detected"].mean == pytest.approx(0.5)


def test_no_face_at_all_is_null_not_nan() -> None:
    table = _table()
    table["identity_detected"] = np.nan
    rows = rows_of(summarise(table, 100, seed=0))
    assert rows["gain"]["identity_detected"] == {"mean": None, "low": None, "high": None}
    json.dumps(rows, allow_nan=False)


def test_nan_where_it_must_not_be_is_refused() -> None:
    table = _table()
    table.loc[3, "clip_t"] = np.nan
    with pytest.raises(ValueError, match="finite"):
        summarise(table[table["person"] == 1].assign(clip_t=np.nan), 100, seed=0)


def test_breakdown_by_style() -> None:
    groups = breakdown(_table(), "style", 100, seed=0)
    assert list(groups) == ["photo", "oil"]
    assert groups["oil"]["gain"]["identity"].mean == pytest.approx(0.1)
    assert groups["oil"]["tuned"]["prompt"].mean == pytest.approx(1)


def test_kinds_of_prompts() -> None:
    kinds = by_kind(_table(), {"recontextualise": ["photo"], "restyle": ["oil"]}, 100, seed=0)
    groups = breakdown(_table(), "style", 100, seed=0)
    assert kinds == {"recontextualise": groups["photo"], "restyle": groups["oil"]}
    assert rows_of(joined(kinds))["restyle"]["gain.identity"]["mean"] == pytest.approx(0.1)
    assert "restyle.tuned.prompt.low" in flatten(joined(kinds))


def test_a_method_that_is_not_there_has_no_comparison() -> None:
    table = _table()
    assert set(summarise(table[table["method"] != "adapter"], 100, seed=0)) == {"noise_only", "tuned", "gain"}


def test_flat_names() -> None:
    numbers = flatten(summarise(_table(), 100, seed=0))
    assert len(numbers) == 3 * len(METRICS) * (len(VARIANTS) + 2)
    assert numbers["gain.identity"] == pytest.approx(0.1) and "gain.identity.low" in numbers


def test_scale_of_identity() -> None:
    axes = np.eye(4)
    scale = scale_of_identity(list(axes), [[axes[0], axes[1]], [axes[1]], [], [axes[3]]], 100, seed=0)
    assert scale["same_person"].mean == pytest.approx((0.5 + 1 + 1) / 3)
    assert scale["stranger"].mean == 0
    assert scale_of_identity(list(axes), [[]] * 4, 100, seed=0)["same_person"].mean is None
