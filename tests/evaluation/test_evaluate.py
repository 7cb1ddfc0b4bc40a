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

from lookahead.config import Checkpoints, Evaluate, with_overrides
from lookahead.dataset.prompts import read_prompts
from lookahead.errors import InputError
from lookahead.evaluation.compare import compare, places, read_run
from lookahead.evaluation.evaluate import evaluate
from lookahead.evaluation.methods import COMPARISONS, VARIANTS
from lookahead.evaluation.metrics import METRICS, SPREAD
from lookahead.evaluation.plan import make_plan
from lookahead.evaluation.store import adapter_key, shelf
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.models.kv_encoder import KV_FILE, new_kv_encoder, save_kv_encoder
from lookahead.portraits import read_people
from lookahead.report.pages import number
from lookahead.world import open_pipeline

Variants = Mapping[str, Path | None]


def _silent(numbers: Mapping[str, float], step: int) -> None:
    """A log that keeps nothing."""


@pytest.fixture(scope="module")
def variants(tiny: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Variants:
    """The untuned adapter, the same file under another name, and one whose attention weights were moved."""
    folder = tmp_path_factory.mktemp("variants")
    for name in ("same", "moved"):
        (folder / name).mkdir()
    same = Path(shutil.copy(Path(tiny.adapter.source) / tiny.adapter.weight_name, folder / "same" / ADAPTER_FILE))
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
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the finished evaluation keeps its pictures; copy it, do not touch it."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def work(
    tiny: Checkpoints,
    quick: Evaluate,
    variants: Variants,
    logged: dict[str, float],
    store: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished evaluation."""
    work = tmp_path_factory.mktemp("work")
    evaluate(tiny, quick, variants, work, lambda numbers, step: logged.update(numbers), store)
    return work


def test_outputs(work: Path) -> None:
    made = {str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()}
    assert {
        "metrics.json",
        "protocol.json",
        "per_image.parquet",
        "spread.parquet",
        "report.html",
        "grids/people.png",
    } <= made
    assert not [name for name in made if name.endswith((".tmp", ".pkl"))]


def test_metrics_keep_the_contract(work: Path) -> None:
    metrics = json.loads((work / "metrics.json").read_text())
    groups = {*VARIANTS, "difference", "gain"}  # the encoders have no keys and values
    kinds = ("recontextualise", "restyle")
    assert set(metrics) == groups | {*kinds, "scale"}
    assert all(set(metrics[group]) == set(METRICS | SPREAD) for group in groups)
    assert all(
        set(metrics[kind]) == {f"{g}.{name}" for g in groups for name in ("identity", "prompt")} for kind in kinds
    )
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


def test_further_noises_are_drawn_once_and_the_base_model_from_every_one(work: Path, quick: Evaluate) -> None:
    """The first repeats are the plan's own pictures: equal seeds and persons, and the same similarity of layout."""
    table = pd.read_parquet(work / "spread.parquet")
    shots = quick.diversity.people * quick.diversity.prompts * quick.diversity.seeds
    assert table.groupby("method").size().to_dict() == dict.fromkeys((*VARIANTS, "base"), shots)
    drawn = {path.name: sum(len(pd.read_parquet(s)) for s in path.iterdir()) for path in work.glob("pictures/spread/*")}
    assert drawn == dict.fromkeys(VARIANTS, shots // 2) | {"base": shots}
    planned = set(pd.read_parquet(work / "per_image.parquet")["seed"])
    assert (table["seed"].isin(planned) == (table["repeat"] == 0)).all()
    own = table[table["method"] == "base"]
    assert own["layout"].to_numpy() == pytest.approx(1)
    assert (table[table["method"] != "base"]["layout"] < 1).all()


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
    evaluate(tiny, quick, variants, tmp_path, _silent, tmp_path.with_name("fresh"))
    for path in work.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(work)).read_bytes(), path.name


def shards(store: Path) -> dict[Path, int]:
    """When each kept shard was written."""
    return {path.relative_to(store): path.stat().st_mtime_ns for path in store.rglob("*.parquet")}


def test_goes_on_where_it_was_killed(
    work: Path, store: Path, tiny: Checkpoints, quick: Evaluate, variants: Variants, tmp_path: Path
) -> None:
    """Shards that are kept are not drawn again, missing ones are, and the numbers are the same."""
    own = Path(shutil.copytree(store, tmp_path / "store"))
    gone = sorted(own.rglob("00001.parquet"))[0]
    gone.unlink()
    before = shards(own)
    stray = gone.with_name(".00001.killed.parquet")
    stray.write_bytes(b"half")
    evaluate(tiny, quick, variants, tmp_path / "work", _silent, own)
    after = shards(own)
    assert gone.relative_to(own) in after and not stray.exists()
    assert {path: time for path, time in after.items() if path in before} == before
    assert (tmp_path / "work" / "per_image.parquet").read_bytes() == (work / "per_image.parquet").read_bytes()


def test_another_judge_draws_nothing(
    work: Path, store: Path, tiny: Checkpoints, quick: Evaluate, variants: Variants, tmp_path: Path
) -> None:
    """The same pictures get other numbers."""
    own = Path(shutil.copytree(store, tmp_path / "store"))
    before = shards(own)
    faces = tiny.faces.model_copy(update={"report": tiny.faces.select})
    told = with_overrides(quick, {"bootstrap": 50})
    evaluate(tiny.model_copy(update={"faces": faces}), told, variants, tmp_path / "work", _silent, own)
    assert shards(own) == before
    ours, theirs = (pd.read_parquet(folder / "per_image.parquet") for folder in (work, tmp_path / "work"))
    assert (ours["clip_t"] == theirs["clip_t"]).all() and (ours["identity"] != theirs["identity"]).any()


@pytest.mark.parametrize("change", [{"steps": 3}, {"guidance": 2.0}, {"seed": 2}, {"batch": 9}, {"people": 3}])
def test_another_protocol_is_another_shelf(
    change: dict[str, object], store: Path, tiny: Checkpoints, quick: Evaluate, variants: Variants
) -> None:
    assert not (names(with_overrides(quick, change), tiny, variants) & names(quick, tiny, variants))
    assert names(quick, tiny, variants) < {path.name for path in store.iterdir()}  # and those of further noises


def names(settings: Evaluate, checkpoints: Checkpoints, variants: Variants) -> set[str]:
    people = read_people(Path(settings.portraits), settings.people)
    plan = make_plan(read_prompts(settings.prompts), settings)
    return {
        shelf(Path(), checkpoints, settings, people, plan, adapter_key(checkpoints, path), None).name
        for path in variants.values()
    }


def test_a_changed_file_is_another_shelf(
    tiny: Checkpoints, quick: Evaluate, variants: Variants, tmp_path: Path
) -> None:
    """Of the encoder, of a network, or of a reference photo."""
    known = names(quick, tiny, variants)
    moved = variants["tuned"]
    assert moved is not None
    copy = Path(shutil.copytree(moved, tmp_path / "encoder"))
    assert names(quick, tiny, {"tuned": copy}) < known
    (copy / ADAPTER_FILE).write_bytes((copy / ADAPTER_FILE).read_bytes() + b" ")
    assert not names(quick, tiny, {"tuned": copy}) & known
    base = Path(shutil.copytree(tiny.base, tmp_path / Path(tiny.base).name))
    assert names(quick, tiny.model_copy(update={"base": str(base)}), variants) == known
    (base / "model_index.json").write_text("{}")
    assert not names(quick, tiny.model_copy(update={"base": str(base)}), variants) & known
    photos = Path(shutil.copytree(quick.portraits, tmp_path / "photos"))
    (photos / "000" / "0.jpg").write_bytes((photos / "001" / "0.jpg").read_bytes())
    splits = quick.splits.model_dump() | {"test": str(photos)}
    assert not names(with_overrides(quick, {"splits": splits}), tiny, variants) & known


def test_log_receives_every_number(work: Path, logged: dict[str, float]) -> None:
    metrics = json.loads((work / "metrics.json").read_text())
    assert logged["gain.identity"] == metrics["gain"]["identity"]["mean"]
    assert logged["tuned.prompt.high"] == metrics["tuned"]["prompt"]["high"]
    assert len(logged) == sum(len(value) for group in metrics.values() for value in group.values())


def test_damaged_shard_is_refused(
    store: Path, tiny: Checkpoints, quick: Evaluate, variants: Variants, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(store, tmp_path / "store"))
    for shard in own.rglob("00001.parquet"):
        shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(InputError, match=r"store/.*/00001\.parquet is damaged .* remove it"):
        evaluate(tiny, quick, variants, tmp_path / "work", _silent, own)


def test_a_comparison_of_two_methods_agrees_with_the_metrics(work: Path, quick: Evaluate) -> None:
    runs = [read_run(method, work, method) for method in ("noise_only", "tuned")]
    metrics = json.loads((work / "metrics.json").read_text())["gain"]
    found = {d.figure: d.change.row() for d in compare(runs, quick.bootstrap) if d.group == "all"}
    assert found == {
        "identity": metrics["identity"],
        "prompt": metrics["prompt"],
        "detection": metrics["detection_rate"],
    }
    shown = quick.grid_people * (quick.photo_prompts + 5) * quick.seeds
    assert len(places(runs)) == shown and len(runs[0].album["reference"]) == quick.grid_people


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
        evaluate(tiny, with_overrides(quick, change), variants, tmp_path, _silent, tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_missing_adapter_is_refused(tiny: Checkpoints, quick: Evaluate, variants: Variants, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody"):
        evaluate(tiny, quick, {**variants, "tuned": tmp_path / "nobody"}, tmp_path, _silent, tmp_path)


def test_keys_and_values_make_a_further_method(
    tiny: Checkpoints, quick: Evaluate, variants: Variants, tmp_path: Path
) -> None:
    """An untuned KV-encoder gives the base's own keys and values, which change the pictures all the same."""
    encoder = tmp_path / "encoder"
    shutil.copytree(str(variants["noise_only"]), encoder)
    save_kv_encoder(encoder / KV_FILE, new_kv_encoder(open_pipeline(tiny).unet, 2, 2, 0))
    evaluate(tiny, quick, {**variants, "tuned": encoder}, tmp_path / "work", _silent, tmp_path / "store")
    metrics = json.loads((tmp_path / "work" / "metrics.json").read_text())
    assert metrics["tuned_without_kv"] == metrics["noise_only"]  # the same image tokens, and nothing else
    assert metrics["kv_gain"] == metrics["gain"] and metrics["kv_gain"]["clip_t"]["mean"] != 0
    page = (tmp_path / "work" / "report.html").read_text()
    assert COMPARISONS["kv_gain"].name in page and "lookahead without KV" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [({"people": 5}, "diversity.people is 5, but evaluate.people only 4"), ({"prompts": 7}, "diversity.prompts is 7")],
)
def test_more_diversity_than_there_is_is_refused(
    change: dict[str, int], message: str, tiny: Checkpoints, quick: Evaluate, variants: Variants, tmp_path: Path
) -> None:
    diversity = quick.diversity.model_copy(update=change)
    with pytest.raises(InputError, match=message):
        evaluate(tiny, quick.model_copy(update={"diversity": diversity}), variants, tmp_path, _silent, tmp_path)


def test_unknown_method_is_refused(tiny: Checkpoints, quick: Evaluate, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it was given tuned, untrained"):
        evaluate(tiny, quick, {"tuned": None, "untrained": None}, tmp_path, _silent, tmp_path)
