"""The reports of an evaluation, a study and a search: what they write, what the pages say, equal bytes."""

import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lookahead.config import Study, read_params
from lookahead.evaluation.contrasts import Contrast, contrasts, summary
from lookahead.evaluation.evaluate import Tables
from lookahead.report.evaluation import preview_curves, write_evaluation_report
from lookahead.report.pages import inline_files, save_page
from lookahead.report.studies import lines_of, save_front, search_tables, write_study_report
from tests.modules import ROOT
from tests.project import files_of
from tests.report.frames import GROUPS, METRICS, draw, long_table, portraits, previews, protocol

PAIRS = [Contrast("tuning", "tuned", "adapter"), Contrast("gain", "tuned", "noise_only")]


def check_self_contained(page: str, pictures: int) -> None:
    assert page.count("<img ") == page.count('src="data:image/') == pictures
    assert not re.search(r"https?://|<link|<script", page) and "no difference" not in page


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reports of one evaluation, written twice."""
    folder = tmp_path_factory.mktemp("evaluated")
    table = long_table({"adapter": 0.0, "noise_only": 0.01, "tuned": 0.08})
    table["of_group"] = table["style"].map({style: name for name, styles in GROUPS.items() for style in styles})
    parts = [(METRICS, None), *((("identity", "prompt"), column) for column in ("of_group", "style", "scene"))]
    scale = pd.DataFrame([{"cell": "scale", "sampler": "full", "group": "all", "metric": "stranger"}])
    means = [summary(table, metrics, column) for metrics, column in parts]
    means.append(scale.assign(mean=0.123, low=0.1, high=0.2, people=4, seeds=1))
    changes = pd.concat([contrasts(table, PAIRS, metrics, column) for metrics, column in parts])
    people = portraits(folder / "portraits")
    for name in ("one", "two"):
        draw(table, folder / name / "pictures")
        tables = Tables(table, pd.concat(means), changes, previews(), people, protocol())
        write_evaluation_report(tables, folder / name, grid_people=2)
    return folder


def test_an_evaluations_report_is_self_contained_and_equal_bytes(evaluated: Path) -> None:
    one = files_of(evaluated / "one")
    assert one == files_of(evaluated / "two")
    assert {"report.html", "headline.md", "album.parquet", "preview_curves.csv", "grids/people.png"} < set(one)
    page = one["report.html"].decode()
    check_self_contained(page, 2 * (1 + 3 * 4) + 3)  # people: reference, methods x shots; figures
    assert "Lookahead against noise loss only (4 people, this training): identity +0.07" in page
    assert "], higher; prompt alignment +0.000 [+0.000 to +0.000], not significant." in page
    table = one["headline.md"].decode()
    assert all(
        text in table for text in ("| untuned", "| lookahead against noise loss only", "4 people, this training")
    )
    assert "no training" in page and "somebody else’s photo: 0.123" in page and "steered" not in page


def test_dvc_plots_columns_that_are_written(evaluated: Path) -> None:
    scales = read_params(ROOT / "params.yaml").active.evaluate.previews.scales
    curves = preview_curves(pd.DataFrame([{"t": t, "scale": s, "identity": 0.5} for t in (1, 2) for s in scales]))
    written = {"preview_curves.csv": set(curves)}
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["plots"]
    wanted: dict[str, set[str]] = {name: set() for name in written}
    for plot in (next(iter(plot.values())) for plot in plots if isinstance(plot, dict)):
        for file, columns in plot["y"].items():
            if "/evaluate/" in file:
                own = plot["x"] if isinstance(plot["x"], str) else plot["x"][file]
                wanted[Path(file).name] |= {own, *([columns] if isinstance(columns, str) else columns)}
    assert wanted == written
    assert preview_curves(previews()).to_numpy().tolist() == [[100, 0.1, 0.6], [900, 0.9, 1.4]]


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_study_of_cells_and_samplers(seeds: int, tmp_path: Path) -> None:
    table = long_table({"adapter": 0.0, "half": 0.01, "whole": 0.08}, seeds, ("full", "fast"))
    pairs = [Contrast("half", "half", "adapter"), Contrast("whole", "whole", "half")]
    labels = {"adapter": ("untouched", {}), "half": ("tuned at 0.5", {"adapter_scale": 0.5}), "whole": ("tuned", {})}
    common = {"encoder": "adapter", "after": None, "train": {}, "against": []}
    cells = {key: common | {"label": label, "sampling": own} for key, (label, own) in labels.items()}
    own = {"question": "How strong?", "split": "search", "people": 4, "photo_prompts": 1, "seeds": [1], "protocol": {}}
    study = Study.model_validate(own | {"samplers": {"full": {}, "fast": {}}, "grid_people": 2, "cells": cells})
    assert lines_of(study) == {"adapter": ("untouched", ""), "half": ("tuned", "0.5"), "whole": ("tuned", "")}
    people, pictures = portraits(tmp_path / "portraits"), draw(table, tmp_path / "pictures")
    frames = (table, summary(table, METRICS), contrasts(table, pairs, METRICS))
    for name in ("one", "two"):
        write_study_report("curves", study, *frames, people, pictures, tmp_path / name)
    one = files_of(tmp_path / "one")
    assert one == files_of(tmp_path / "two")
    assert set(one) == {
        *("table.md", "table.csv", "contrasts.csv", "contrasts.png", "tradeoff.png", "grid.jpg", "report.html")
    }
    page, markdown = one["report.html"].decode(), one["table.md"].decode()
    check_self_contained(page, 3)
    sample = "4 people, this training" if seeds == 1 else "4 people, 3 seeds"
    for text in (page, markdown):
        assert text.count(sample) == 2 * (2 + 2) and text.count("4 people, no training") == 2
        assert "tuned against tuned at 0.5" in text and "not significant" in text
    assert "How strong?" in page and "sampler fast" in page
    assert len(pd.read_csv(tmp_path / "one" / "contrasts.csv")) == 2 * 2 * len(METRICS)


def test_a_search_shows_its_front_and_settings(tmp_path: Path) -> None:
    columns, nan = ["number", "state", "weight", "kind", "identity", "prompt", "front", "reason"], float("nan")
    rows = [
        (0, "complete", 0.1, "cosine", 0.5, 0.9, False, ""),
        (1, "complete", 0.2, "uniform", 0.6, 0.9, True, ""),
        (2, "complete", nan, None, 0.4, 0.8, False, ""),
        (3, "fail", 0.3, "cosine", nan, nan, False, "the loss is NaN"),
    ]
    trials = pd.DataFrame(rows, columns=columns)
    searched = long_table({"0": 0.0, "1": 0.1})
    change = contrasts(searched, [Contrast("recommended", "1", "0")], ("identity", "prompt"))
    means = summary(searched, ("identity", "prompt"))
    notes, parts = {0: "params.yaml", 1: "recommended"}, {"search": means, "against params.yaml": change}
    tables = search_tables(trials, notes, parts)
    assert list(tables["search"].index) == ["1, recommended", "0, params.yaml"]
    assert list(tables["against params.yaml"].index) == ["1, recommended"]
    assert tables["against params.yaml"].iloc[0, 0].startswith("+0.100")
    assert tables["settings"].to_numpy().tolist() == [[0.2, 0.1], ["uniform", "cosine"]]
    save_front(trials, notes, {"identity": 0.45, "prompt": 0.92}, 0.02, tmp_path / "front.png")
    texts = {"title": "study, miniature", "description": "On 4 people.", "rule": "the best", "verdict": "Trial 1."}
    figures = {"front": tmp_path / "front.png"}
    content = {"changes": {"train.weight": 0.2}, "tables": tables, "pictures": inline_files(figures)}
    save_page("search.html.j2", tmp_path / "report.html", texts | content)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    check_self_contained(page, 1)
    assert "cosine" in page and "train.weight: 0.2" in page and "4 people, this training" in page
