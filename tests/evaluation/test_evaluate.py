"""The whole evaluation in a tiny world: its tables, its determinism, its cache and its refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lookahead.config import Checkpoints, Evaluate, with_overrides
from lookahead.errors import InputError
from lookahead.evaluation import spread
from lookahead.evaluation.cells import CONTRASTS, LABELS, TRAINED, main_cells
from lookahead.evaluation.evaluate import FURTHER, HEADLINE, Tables, evaluate, scale_of_identity
from lookahead.models.kv_encoder import KV_FILE, new_kv_encoder, save_kv_encoder
from lookahead.report.evaluation import write_evaluation_report
from lookahead.world import open_pipeline
from tests.evaluation.conftest import Encoders

METRICS = {*HEADLINE, *FURTHER}
ID = ["cell", "sampler", "training_seed", "person", "style", "scene", "repeat", "noise_seed"]
CELLS = ("adapter", *TRAINED)


def run(checkpoints: Checkpoints, settings: Evaluate, encoders: Encoders, folder: Path, cache: Path) -> Tables:
    logged: list[dict[str, float]] = []
    found = evaluate(checkpoints, settings, encoders, 7, folder, lambda numbers, _: logged.append(dict(numbers)), cache)
    assert logged == [json.loads((folder / "metrics.json").read_text())]
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the finished evaluation keeps its pictures; copy it, do not touch it."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished evaluation."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def found(tiny: Checkpoints, quick: Evaluate, encoders: Encoders, work: Path, cache: Path) -> Tables:
    """A finished evaluation."""
    return run(tiny, quick, encoders, work, cache)


def test_the_long_table_has_every_picture_once(found: Tables, quick: Evaluate) -> None:
    table = found.table
    assert table.columns.tolist()[:8] == ID and set(table.columns) == {*ID, *METRICS}
    assert not table.duplicated(ID[:7]).any()
    assert table.groupby("cell", sort=False).size().to_dict() == dict.fromkeys(CELLS, quick.people * 6)
    assert set(table[["cell", "training_seed"]].itertuples(index=False, name=None)) == {
        ("adapter", -1),
        ("noise_only", 7),
        ("tuned", 7),
    }
    assert table.groupby(["person", "style", "scene"])["noise_seed"].nunique().eq(1).all()


def test_the_headline_is_small_and_the_intervals_have_every_cell_and_contrast(found: Tables, work: Path) -> None:
    metrics = json.loads((work / "metrics.json").read_text())
    assert {"identity", "prompt", "gain_identity", "gain_prompt"} <= set(metrics) and len(metrics) <= 12
    intervals = json.loads((work / "intervals.json").read_text())
    assert set(intervals) == {*CELLS, "difference", "gain", "scale"}  # the encoders have no keys and values
    assert all(set(intervals[name]) == METRICS | set(spread.METRICS) for name in {*CELLS, "gain"})
    assert intervals["gain"]["identity"]["mean"] == pytest.approx(metrics["gain_identity"])
    for entry in (value for group in intervals.values() for value in group.values()):
        assert set(entry) == {"mean", "low", "high", "people", "seeds"} and entry["seeds"] == 1
    groups = set(found.contrasts["group"])
    assert {"all", "recontextualise", "restyle"} < groups and set(found.summary["group"]) == groups
    assert set(pd.read_csv(work / "contrasts.csv").columns) >= {"p_holm", "verdict", "non_inferior", "seeds", "people"}


def test_equal_adapters_draw_equal_pictures_and_others_do_not(found: Tables) -> None:
    means = found.table.groupby("cell")[sorted(METRICS)].mean()
    assert means.loc["adapter"].equals(means.loc["noise_only"])
    assert means.loc["tuned", "clip_t"] != means.loc["adapter", "clip_t"]


def test_further_noises_are_drawn_once_and_the_base_model_from_every_one(
    found: Tables, work: Path, cache: Path, quick: Evaluate
) -> None:
    """The first repeats are the plan's own pictures."""
    table = pd.read_parquet(work / "spread.parquet")
    shots = quick.diversity.people * quick.diversity.prompts * quick.diversity.seeds
    assert table.groupby("cell").size().to_dict() == dict.fromkeys((*CELLS, "base"), shots)
    folders = [path for path in cache.glob("*/") if path.name != "tables"]
    drawn = sorted(sum(len(pd.read_parquet(s)) for s in path.glob("*.parquet")) for path in folders)
    assert drawn == [shots // 2] * 3 + [shots] + [quick.people * 6] * 3
    assert (table["noise_seed"].isin(set(found.table["noise_seed"])) == (table["repeat"] == 0)).all()
    base = table["cell"] == "base"
    assert table[base]["layout"].to_numpy() == pytest.approx(1) and (table[~base]["layout"] < 1).all()


def test_again_gives_the_same_bytes(
    found: Tables, work: Path, tiny: Checkpoints, quick: Evaluate, encoders: Encoders, tmp_path: Path
) -> None:
    run(tiny, quick, encoders, tmp_path / "work", tmp_path / "cache")
    for path in work.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "work" / path.relative_to(work)).read_bytes(), path.name


def written(cache: Path) -> dict[Path, int]:
    """When each cached file was written."""
    return {path.relative_to(cache): path.stat().st_mtime_ns for path in cache.rglob("*.parquet")}


def test_what_is_cached_is_neither_drawn_nor_scored_again(
    found: Tables,
    tiny: Checkpoints,
    quick: Evaluate,
    encoders: Encoders,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So no model is opened: an edit of a report costs the report."""
    before = written(cache)
    for name in ("open_pipeline", "open_scorers"):
        monkeypatch.setattr(f"lookahead.evaluation.evaluator.{name}", None)
    again = run(tiny, quick, encoders, tmp_path / "work", cache)
    pd.testing.assert_frame_equal(again.table, found.table)
    pd.testing.assert_frame_equal(again.summary, found.summary)
    assert written(cache) == before


def test_goes_on_where_it_was_killed(
    found: Tables, tiny: Checkpoints, quick: Evaluate, encoders: Encoders, cache: Path, tmp_path: Path
) -> None:
    """Shards that are kept are not drawn again, missing ones are, and the numbers are the same."""
    own = Path(shutil.copytree(cache, tmp_path / "cache"))
    gone = next(path for path in sorted(own.rglob("00001.parquet")) if not path.parent.name.startswith("scores"))
    shutil.rmtree(next(gone.parent.glob("scores-*")))
    gone.unlink()
    before = written(own)
    stray = gone.with_name(".00001.killed.parquet")
    stray.write_bytes(b"half")
    again = run(tiny, quick, encoders, tmp_path / "work", own)
    after = written(own)
    assert gone.relative_to(own) in after and not stray.exists()
    assert {path: time for path, time in after.items() if path in before} == before
    pd.testing.assert_frame_equal(again.table, found.table)


def test_another_scorer_draws_nothing_and_scores_anew(
    found: Tables, tiny: Checkpoints, quick: Evaluate, encoders: Encoders, cache: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(cache, tmp_path / "cache"))
    before = written(own)
    faces = tiny.faces.model_copy(update={"report": tiny.faces.select})
    again = run(tiny.model_copy(update={"faces": faces}), quick, encoders, tmp_path / "work", own)
    after = written(own)
    assert all(path.parent.name.startswith("scores") or path.parent.name == "tables" for path in after.keys() - before)
    assert (found.table["clip_t"] == again.table["clip_t"]).all()
    assert (found.table["identity"] != again.table["identity"]).any()


def test_a_damaged_shard_is_refused(
    found: Tables, tiny: Checkpoints, quick: Evaluate, encoders: Encoders, cache: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copytree(cache, tmp_path / "cache"))
    for shard in own.glob("*/00001.parquet"):
        shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(InputError, match=r"cache/.*/00001\.parquet is damaged .* remove it"):
        run(tiny, quick, encoders, tmp_path / "work", own)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": {"search": "a", "validation": "b", "test": "no/such/folder"}}, "no/such/folder does not exist"),
        ({"people": 30}, "30 people are asked for"),
        ({"prompts": "no/prompts.yaml"}, "no/prompts.yaml"),
        ({"scheduler": "Quickest"}, "Quickest"),
    ],
)
def test_bad_settings_are_refused(
    change: dict[str, object], message: str, tiny: Checkpoints, quick: Evaluate, encoders: Encoders, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        run(tiny, with_overrides(quick, change), encoders, tmp_path, tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_a_missing_or_unknown_encoder_is_refused(quick: Evaluate, encoders: Encoders, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody holds no encoder"):
        main_cells({**encoders, "tuned": tmp_path / "nobody"}, quick, 0)
    with pytest.raises(InputError, match="not tuned, untrained"):
        main_cells({"tuned": tmp_path, "untrained": tmp_path}, quick, 0)


def test_keys_and_values_make_a_further_cell_and_the_report_has_it(
    tiny: Checkpoints, quick: Evaluate, encoders: Encoders, tmp_path: Path
) -> None:
    """An untuned KV-encoder gives the base's own keys and values, which change the pictures all the same."""
    encoder = Path(shutil.copytree(encoders["noise_only"], tmp_path / "encoder"))
    save_kv_encoder(encoder / KV_FILE, new_kv_encoder(open_pipeline(tiny).unet, 2, 2, 0))
    work = tmp_path / "work"
    found = run(tiny, quick, {**encoders, "tuned": encoder}, work, tmp_path / "cache")
    means = found.table.groupby("cell")[sorted(METRICS)].mean()
    assert means.loc["tuned_without_kv"].equals(means.loc["noise_only"])  # the same image tokens, and nothing else
    assert means.loc["tuned", "clip_t"] != means.loc["noise_only", "clip_t"]
    assert set(found.contrasts["contrast"]) == {pair.name for pair in CONTRASTS[:3]}
    shown = (found.previews, found.people, work / "pictures", found.protocol, work)
    write_evaluation_report(found.table, found.summary, found.contrasts, *shown, labels=LABELS, grid_people=2)
    page = (work / "report.html").read_text()
    assert LABELS["tuned_without_kv"] in page and str(found.protocol["hash"]) in page
    assert "http" not in page and "None" not in page and "nan" not in page.split("base64")[0]


def test_scale_of_identity() -> None:
    axes = np.eye(4)
    scale = scale_of_identity(list(axes), [[axes[0], axes[1]], [axes[1]], [], [axes[3]]]).set_index("metric")
    assert scale["mean"]["same_person"] == pytest.approx((0.5 + 1 + 1) / 3) and scale["mean"]["stranger"] == 0
    assert scale_of_identity(list(axes), [[]] * 4)["mean"].isna().tolist() == [True, False]
