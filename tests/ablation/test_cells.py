"""Cells and the table on the tiny world, by the functions that the stages call."""

import json
import runpy
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import load_file

from lookahead.ablation.cell import build_cell, settings_of
from lookahead.ablation.report import write_ablation
from lookahead.config import Ablation, Evaluate, Row, read_evaluate, read_params, with_overrides
from lookahead.errors import InputError
from lookahead.tracking import flatten
from tests.tiny import build_portraits
from tests.training.conftest import features, settings  # noqa: F401  (fixtures)

ROWS = {
    "untuned": Row(label="adapter untouched", after=None, tuned="nothing", changes={}),
    "noise_only": Row(label="noise loss only", after=None, tuned="train", changes={"lookahead.weight": 0.0}),
    "kv": Row(label="+ KV-encoder", after="noise_only", tuned="train", changes={"kv.enabled": True}),
    "kv_untuned": Row(label="KV-encoder untuned", after="noise_only", tuned="adapter", changes={}),
}


@pytest.fixture(scope="module")
def study() -> Ablation:
    return Ablation(seeds=[0, 1], people=2, photo_prompts=1, steps=2, fast_steps=2, grid_people=2, rows=ROWS)


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Evaluate:
    portraits = build_portraits(tmp_path_factory.mktemp("portraits"), 2)
    changes = {
        "splits": {split: str(portraits) for split in ("search", "validation", "test")},
        "steps": 2,
        "batch": 10,
        "bootstrap": 200,
        "previews": {"people": 1, "timesteps": [500], "scales": [1.0]},
    }
    return with_overrides(read_evaluate(read_params().worlds["miniature"].evaluate), changes)


def build(tiny_world, study, row, seed, settings, protocol, features, cells) -> Path:  # noqa: F811
    work, store = cells / row / str(seed), cells.with_name("store")
    chosen = settings_of(study, row, seed, settings.model_copy(update={"steps": 2}))
    build_cell(tiny_world, study, row, chosen, protocol, features, work, lambda *_: None, store)
    return work


@pytest.fixture(scope="module")
def cells(tiny_world, study, settings, protocol, features, tmp_path_factory) -> Path:  # noqa: F811
    folder = tmp_path_factory.mktemp("cells")
    for row in ROWS:
        for seed in study.seeds:
            build(tiny_world, study, row, seed, settings, protocol, features, folder)
    return folder


def test_a_cell_holds_its_encoder_and_a_row_a_picture_and_sampler(cells, study):
    assert (cells / "kv" / "0" / "training" / "encoder" / "kv.safetensors").is_file()
    assert not (cells / "untuned" / "0" / "training").exists()
    assert not (cells / "noise_only" / "0" / "training.resume").exists()
    table = pd.read_parquet(cells / "kv" / "0" / "per_image.parquet")
    assert table.groupby("sampler").size().to_dict() == {"full": 12, "fast": 12}  # 2 people, 6 prompts
    metrics = json.loads((cells / "kv" / "0" / "metrics.json").read_text())
    assert {"full.identity", "fast.prompt_right"} <= metrics.keys()


def pictures(cell: Path, sampler: str) -> list[bytes]:
    shards = sorted((cell / "pictures" / sampler).glob("*.parquet"))
    return [row for shard in shards for row in pd.read_parquet(shard)["image"]]


def test_the_untuned_adapter_is_the_same_with_every_seed_and_tuning_is_not(cells):
    for sampler in ("full", "fast"):
        assert pictures(cells / "untuned" / "0", sampler) == pictures(cells / "untuned" / "1", sampler)
        assert pictures(cells / "kv" / "0", sampler) != pictures(cells / "kv" / "1", sampler)
    assert pictures(cells / "untuned" / "0", "full") != pictures(cells / "untuned" / "0", "fast")


def test_where_the_adapter_alone_is_tuned_it_is_the_other_rows_beside_an_untuned_kv_encoder(cells):
    other, own = (cells / row / "0" / "training" / "encoder" for row in ("noise_only", "kv_untuned"))
    assert (own / "ip-adapter.safetensors").read_bytes() == (other / "ip-adapter.safetensors").read_bytes()
    weights = load_file(own / "kv.safetensors")
    assert all(not w.any() for name, w in weights.items() if "lora_B" in name or name.endswith("up.weight"))
    assert pictures(cells / "kv_untuned" / "0", "full") != pictures(cells / "noise_only" / "0", "full")


def test_a_killed_cell_trains_no_second_time(cells, tiny_world, study, settings, protocol, features):  # noqa: F811
    work = cells / "noise_only" / "0"
    before = {path: path.stat().st_mtime_ns for path in (work / "training").rglob("*.safetensors")}
    (work / "per_image.parquet").unlink()
    build(tiny_world, study, "noise_only", 0, settings, protocol, features, cells)
    assert (work / "per_image.parquet").is_file()
    assert before == {path: path.stat().st_mtime_ns for path in (work / "training").rglob("*.safetensors")}


def test_the_table_the_page_and_the_grid(cells, study, protocol, tmp_path):
    write_ablation(study, protocol, cells, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == sorted(ROWS)
    assert metrics["kv"]["against"] == "noise_only" and len(metrics["kv"]["differences_by_seed"]["full.identity"]) == 2
    assert (tmp_path / "table.md").read_text().count("\n") == 2 + len(ROWS)
    page = (tmp_path / "report.html").read_text()
    assert all(row.label in page for row in ROWS.values()) and page.count("data:image/") == 2
    with Image.open(tmp_path / "grid.jpg") as grid:
        assert grid.height > (1 + len(ROWS)) * 128 and grid.width > 4 * 128


def test_a_missing_cell_is_named(cells, study, protocol, tmp_path):
    more = study.model_copy(update={"seeds": [0, 1, 7]})
    with pytest.raises(InputError, match="untuned/7/per_image"):
        write_ablation(more, protocol, cells, tmp_path)


def test_a_wrong_path_of_a_change_is_refused(study, settings):  # noqa: F811
    rows = ROWS | {"noise_only": ROWS["noise_only"].model_copy(update={"changes": {"lookahead.wait": 0.0}})}
    with pytest.raises(InputError, match=r"train\.lookahead\.wait is no parameter"):
        settings_of(study.model_copy(update={"rows": rows}), "noise_only", 0, settings)
    rows = ROWS | {"noise_only": ROWS["noise_only"].model_copy(update={"changes": {"ema": 2.0}})}
    with pytest.raises(InputError, match="ema"):
        settings_of(study.model_copy(update={"rows": rows}), "noise_only", 0, settings)


def test_a_cell_tells_the_parameters_that_it_trains_with():
    """As MLflow will show them: the world's, with the row's changes and the cell's seed."""
    study, train = read_params().studies.ablation, read_params().worlds["miniature"].train
    told = {name: cell.told for name, cell in runpy.run_path("stages/ablation.py")["stages"]().items()}
    for row, seed in product(study.rows, study.seeds):
        shown = flatten({"train": train.model_dump(mode="json"), **told[f"{row}-{seed}"]}).items()
        trained = settings_of(study, row, seed, train).model_dump(mode="json")
        assert {name: value for name, value in shown if name.startswith("train.")} == flatten({"train": trained})
