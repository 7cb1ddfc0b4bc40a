"""The tables that DVC plots: by group of prompts, and previews with a column a strength."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml

from lookahead.config import read_params
from lookahead.evaluation.series import by_group, preview_curves, save_series
from tests.modules import ROOT

GROUPS = {"recontextualise": ["photo"], "restyle": ["pencil", "oil"]}
ROWS = [  # person, style, identity, prompt
    (0, "photo", 0.5, 1.0),
    (0, "pencil", 0.2, 1.0),
    (0, "oil", 0.4, 0.0),
    (1, "photo", 0.7, 0.0),
    (1, "pencil", 0.1, 1.0),
    (1, "oil", 0.1, 1.0),
]
PREVIEWS = pd.DataFrame({"t": [900, 100, 900, 100], "scale": [0.0, 0.0, 0.5, 0.5], "identity": [0.1, 0.8, 0.3, 0.9]})


def pictures() -> pd.DataFrame:
    table = pd.DataFrame(ROWS, columns=["person", "style", "identity", "prompt_right"])
    worse = table.assign(identity=table["identity"] / 2, method="adapter")
    return pd.concat([table.assign(method="tuned"), worse], ignore_index=True)


def test_a_row_a_method_and_group_means_over_people() -> None:
    table = by_group(pictures(), GROUPS, 100, 0).set_index("series")
    assert list(table.index) == [
        "tuned, recontextualise",
        "tuned, restyle",
        "adapter, recontextualise",
        "adapter, restyle",
    ]
    assert table.loc["tuned, recontextualise", "identity"] == pytest.approx(0.6)
    assert table.loc["tuned, restyle", ["identity", "prompt"]].tolist() == pytest.approx([0.2, 0.75])
    assert table.loc["adapter, restyle", "identity"] == pytest.approx(0.1)
    assert (table["identity_low"] <= table["identity"]).all() and (table["identity"] <= table["identity_high"]).all()


def test_previews_have_a_column_a_strength() -> None:
    curves = preview_curves(PREVIEWS)
    assert curves.to_dict("list") == {"t": [100, 900], "scale 0": [0.8, 0.1], "scale 0.5": [0.9, 0.3]}


def test_dvc_plots_columns_that_are_written(tmp_path: Path) -> None:
    scales = read_params(ROOT / "params.yaml").active.evaluate.previews.scales
    previews = pd.DataFrame([{"t": t, "scale": s, "identity": 0.5} for t in (1, 2) for s in scales])
    save_series(pictures(), previews, GROUPS, 10, 0, tmp_path)
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    seen = set()
    for plot in (next(iter(p.values())) for p in plots if isinstance(p, dict)):
        for file, columns in plot["y"].items():
            if "/evaluate/" in file:
                written = pd.read_csv(tmp_path / Path(file).name)
                named = [columns] if isinstance(columns, str) else columns
                own = plot["x"] if isinstance(plot["x"], str) else plot["x"][file]
                assert {*named, own} <= set(written.columns)
                seen |= {f"{Path(file).name}:{column}" for column in named}
    assert {f"preview_curves.csv:scale {scale:g}" for scale in scales} <= seen
