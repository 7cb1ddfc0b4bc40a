"""The curves on the tiny world, by the functions that the stages call."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from lookahead.config import Checkpoints, Curves, Evaluate, read_evaluate, read_params, with_overrides
from lookahead.curves.cell import Cell, build_cell, cells_of
from lookahead.curves.report import write_curves
from lookahead.curves.table import FIGURES, find
from lookahead.errors import InputError
from tests.tiny import build_portraits

STUDY = Curves(people=3, photo_prompts=1, steps=2, scales=[0.5, 1.0])
BASE = Cell("base", 0.0)


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    portraits = build_portraits(tmp_path_factory.mktemp("portraits"), STUDY.people)
    splits = {"search": "nobody", "validation": "nobody", "test": str(portraits)}
    changes = {"splits": splits, "steps": 2, "batch": 9, "bootstrap": 200}
    return with_overrides(read_evaluate(read_params().worlds["miniature"].evaluate), changes)


def build(tiny_world: Checkpoints, cell: Cell, protocol: Evaluate, work: Path) -> None:
    """A cell; its tuned encoder is the untuned adapter's file, so that nothing may differ from the untuned cells."""
    encoder = Path(tiny_world.adapter.source) if cell.method == "tuned" else None
    build_cell(tiny_world, STUDY, cell, protocol, encoder, work, lambda *_: None, work / "store")


@pytest.fixture(scope="module")
def cells(tiny_world: Checkpoints, protocol: Evaluate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    for cell in cells_of(STUDY):
        build(tiny_world, cell, protocol, folder / cell.name)
    return folder


def pictures(cell: Path) -> list[bytes]:
    return [row for shard in sorted((cell / "pictures").glob("*.parquet")) for row in pd.read_parquet(shard)["image"]]


def test_there_is_a_cell_for_each_method_and_strength_and_the_base() -> None:
    names = [cell.name for cell in cells_of(STUDY)]
    assert names == ["base", "adapter-0.5", "adapter-1.0", "tuned-0.5", "tuned-1.0"]


def test_no_cell_is_steered(protocol: Evaluate) -> None:
    assert protocol.steering is not None and STUDY.protocol(protocol).steering is None


def test_an_adapter_of_strength_zero_draws_the_base_models_pictures(
    tiny_world: Checkpoints, protocol: Evaluate, cells: Path, tmp_path: Path
) -> None:
    build(tiny_world, Cell("adapter", 0.0), protocol, tmp_path)
    assert pictures(tmp_path) == pictures(cells / "base")


def test_strength_and_nothing_else_changes_the_pictures(cells: Path) -> None:
    half, full = (pictures(cells / f"adapter-{scale}") for scale in STUDY.scales)
    assert len({*half, *full, *pictures(cells / "base")}) == 3 * len(half)
    assert pictures(cells / "tuned-0.5") == half and pictures(cells / "tuned-1.0") == full


def test_kept_pictures_are_not_drawn_again(tiny_world: Checkpoints, protocol: Evaluate, cells: Path) -> None:
    work = cells / "adapter-0.5"
    shards = {path: path.stat().st_mtime_ns for path in (work / "store").rglob("*.parquet")}
    table = (work / "per_image.parquet").read_bytes()
    (work / "per_image.parquet").unlink()
    build(tiny_world, Cell("adapter", 0.5), protocol, work)
    assert (work / "per_image.parquet").read_bytes() == table
    assert shards and shards == {path: path.stat().st_mtime_ns for path in (work / "store").rglob("*.parquet")}


def test_numbers_table_figure_and_page(cells: Path, protocol: Evaluate, tmp_path: Path) -> None:
    write_curves(STUDY, protocol, cells, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics) == {cell.name for cell in cells_of(STUDY)} | {"difference-0.5", "difference-1.0"}
    table = pd.read_csv(tmp_path / "curves.csv")
    assert table["method"].tolist() == ["base", "adapter", "adapter", "tuned", "tuned"]
    assert table["identity.mean"][2] == pytest.approx(metrics["adapter-1.0"]["identity"]["mean"], abs=1e-6)
    page = (tmp_path / "report.html").read_text()
    assert page.count("no difference") == 2 * len(FIGURES) and page.count("data:image/png") == 1
    again = tmp_path / "again"
    write_curves(STUDY, protocol, cells, again)
    assert all((again / path.name).read_bytes() == path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


def test_differences_are_paired_and_of_the_same_strength() -> None:
    people = np.random.default_rng(0).normal(0, 1, 50)  # what methods share, which pairing takes out
    level = {"base": 0.0, "adapter": 0.1, "tuned": 0.3}
    values = {cell: dict.fromkeys(FIGURES, people + level[cell.method] * cell.scale) for cell in cells_of(STUDY)}
    found = find(values, STUDY, 200, 0)
    for scale in STUDY.scales:
        assert found.changes[scale]["identity"].measured() == pytest.approx([0.2 * scale] * 3)
    mean, low, high = found.points[BASE]["identity"].measured()
    assert mean == pytest.approx(people.mean()) and high - low > 0.3


def test_a_missing_cell_and_one_of_another_study_are_named(cells: Path, protocol: Evaluate, tmp_path: Path) -> None:
    more = STUDY.model_copy(update={"scales": [0.5, 0.75, 1.0]})
    with pytest.raises(InputError, match=r"adapter-0\.75/per_image\.parquet .*make curves"):
        write_curves(more, protocol, cells, tmp_path)
    with pytest.raises(InputError, match=r"base/per_image\.parquet is of another study"):
        write_curves(STUDY.model_copy(update={"people": 2}), protocol, cells, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scales", [[1.0, 0.5], [0.5, 0.5], [0.0, 1.0], []])
def test_strengths_that_make_no_curve_are_refused(scales: list[float]) -> None:
    with pytest.raises(ValidationError, match="scales"):
        Curves(people=3, photo_prompts=1, steps=2, scales=scales)
