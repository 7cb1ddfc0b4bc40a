"""The whole evaluation in a tiny world: its outputs, its determinism, its resumption and its refusals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from lookahead.config import Checkpoints, Evaluate, variant
from lookahead.errors import InputError
from lookahead.evaluation.evaluate import evaluate
from lookahead.evaluation.metrics import METHODS, METRICS
from lookahead.evaluation.report import number
from lookahead.models.adapter import ADAPTER_FILE

Variants = Mapping[str, Path | None]


def _silent(numbers: Mapping[str, float], step: int) -> None:
    """A log that keeps nothing."""


@pytest.fixture(scope="module")
def variants(tiny: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Variants:
    """The untuned adapter, the same file under another name, and one whose attention weights were moved."""
    folder = tmp_path_factory.mktemp("variants")
    for name in ("same", "moved"):
        (folder / name).mkdir()
    same = Path(shutil.copy(Path(tiny.adapter.source) / tiny.adapter.weight, folder / "same" / ADAPTER_FILE))
    generator = torch.Generator().manual_seed(3)
    tensors = {
        k: v + 0.3 * torch.randn(v.shape, generator=generator) * ("_ip" in k) for k, v in load_file(same).items()
    }
    save_file(tensors, folder / "moved" / ADAPTER_FILE)
    return {"adapter": None, "noise_only": folder / "same", "tuned": folder / "moved"}


@pytest.fixture(scope="module")
def logged() -> dict[str, float]:
    """The numbers that the finished evaluation logged."""
    return {}


@pytest.fixture(scope="module")
def work(
    tiny: Checkpoints,
    quick: Evaluate,
    variants: Variants,
    logged: dict[str, float],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished evaluation."""
    work = tmp_path_factory.mktemp("work")
    evaluate(tiny, quick, variants, work, lambda numbers, step: logged.update(numbers))
    return work


def test_outputs(work: Path) -> None:
    made = {str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()}
    assert {"metrics.json", "protocol.json", "per_image.parquet", "report.html", "grids/people.png"} <= made
    assert not [name for name in made if name.endswith((".tmp", ".pkl"))]


def test_metrics_keep_the_contract(work: Path) -> None:
    metrics = json.loads((work / "metrics.json").read_text())
    assert set(metrics) == {*METHODS, "difference", "gain", "scale"}
    assert all(set(metrics[group]) == set(METRICS) for group in (*METHODS, "difference", "gain"))
    assert all(set(value) == {"mean", "low", "high"} for group in metrics.values() for value in group.values())


def test_equal_adapters_draw_equal_pictures_and_others_do_not(work: Path) -> None:
    metrics = json.loads((work / "metrics.json").read_text())
    assert metrics["adapter"] == metrics["noise_only"]
    assert metrics["gain"] == metrics["difference"]
    assert metrics["gain"]["clip_t"]["mean"] != 0


def test_table_has_every_picture_once(work: Path, quick: Evaluate) -> None:
    table = pd.read_parquet(work / "per_image.parquet")
    assert set(METRICS.values()) | {"method", "person", "style", "scene", "repeat", "seed"} == set(table.columns)
    assert not table.duplicated(["method", "person", "style", "scene", "repeat"]).any()
    assert set(table.groupby("method").size()) == {quick.people * (quick.photo_prompts + 5) * quick.seeds}
    assert table.groupby(["person", "style", "scene"])["seed"].nunique().eq(1).all()


def test_report_is_whole_and_stands_alone(work: Path, quick: Evaluate) -> None:
    page = (work / "report.html").read_text()
    metrics = json.loads((work / "metrics.json").read_text())
    for group, values in metrics.items():
        for name, value in values.items():
            assert all(number(x) in page for x in value.values()), f"{group}.{name}"
    assert json.loads((work / "protocol.json").read_text())["hash"] in page
    pictures = quick.grid_people * (1 + 3 * (quick.photo_prompts + 5)) + 3
    assert page.count("<img ") == page.count('src="data:image/') == pictures
    assert "http" not in page and "None" not in page and "nan" not in page.split("base64")[0]


def test_grid_has_a_column_a_person(work: Path, quick: Evaluate) -> None:
    with Image.open(work / "grids" / "people.png") as grid:
        assert quick.grid_people * 128 < grid.width < (quick.grid_people + 2) * 128
        assert grid.height > 7 * 128


def test_again_gives_the_same_bytes(
    work: Path, tiny: Checkpoints, quick: Evaluate, variants: Variants, tmp_path: Path
) -> None:
    evaluate(tiny, quick, variants, tmp_path, _silent)
    for path in work.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(work)).read_bytes(), path.name


def test_goes_on_where_it_was_killed(
    work: Path, tiny: Checkpoints, quick: Evaluate, variants: Variants, tmp_path: Path
) -> None:
    """Shards that exist are kept, missing ones are drawn, and the numbers are the same."""
    shutil.copytree(work / "pictures", tmp_path / "pictures")
    kept = sorted((tmp_path / "pictures" / "adapter").iterdir())
    shutil.rmtree(tmp_path / "pictures" / "tuned")
    (tmp_path / "pictures" / "noise_only" / "00001.parquet").unlink()
    stray = tmp_path / "pictures" / "adapter" / ".00009.killed.parquet"
    stray.write_bytes(b"half")
    before = [path.stat().st_mtime_ns for path in kept]
    evaluate(tiny, quick, variants, tmp_path, _silent)
    assert [path.stat().st_mtime_ns for path in kept] == before and not stray.exists()
    assert (tmp_path / "metrics.json").read_bytes() == (work / "metrics.json").read_bytes()


def test_log_receives_every_number(work: Path, logged: dict[str, float]) -> None:
    metrics = json.loads((work / "metrics.json").read_text())
    assert logged["gain.identity"] == metrics["gain"]["identity"]["mean"]
    assert logged["tuned.prompt.high"] == metrics["tuned"]["prompt"]["high"]
    assert len(logged) == sum(len(value) for group in metrics.values() for value in group.values())


def test_damaged_shard_is_refused(
    work: Path, tiny: Checkpoints, quick: Evaluate, variants: Variants, tmp_path: Path
) -> None:
    shutil.copytree(work / "pictures", tmp_path / "pictures")
    shard = tmp_path / "pictures" / "tuned" / "00001.parquet"
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(InputError, match=r"00001\.parquet is damaged"):
        evaluate(tiny, quick, variants, tmp_path, _silent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": {"search": "a", "validation": "b", "test": "no/such/folder"}}, "no/such/folder does not exist"),
        ({"people": 30}, "30 people are asked for"),
        ({"prompts": "no/prompts.yaml"}, "no/prompts.yaml"),
        ({"sampler": "Quickest"}, "Quickest"),
    ],
)
def test_bad_settings_are_refused(
    change: dict[str, object], message: str, tiny: Checkpoints, quick: Evaluate, variants: Variants, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        evaluate(tiny, variant(quick, change), variants, tmp_path, _silent)
    assert not (tmp_path / "metrics.json").exists()


def test_missing_adapter_is_refused(tiny: Checkpoints, quick: Evaluate, variants: Variants, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody"):
        evaluate(tiny, quick, {**variants, "tuned": tmp_path / "nobody"}, tmp_path, _silent)


def test_unknown_method_is_refused(tiny: Checkpoints, quick: Evaluate, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it was given tuned, untrained"):
        evaluate(tiny, quick, {"tuned": None, "untrained": None}, tmp_path, _silent)
