"""The whole evaluation in a tiny world: its tables, its determinism, its cache and its refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lookahead.config import Checkpoints, Evaluate
from lookahead.errors import InputError
from lookahead.evaluation import spread
from lookahead.evaluation.cells import CONTRASTS, LABELS, TRAINED, main_cells
from lookahead.evaluation.evaluate import FURTHER, HEADLINE, Tables, evaluate, photo_scale
from lookahead.models.kv_encoder import KV_FILE, new_kv_encoder, save_kv_encoder
from lookahead.report.evaluation import write_evaluation_report
from lookahead.world import open_pipeline
from tests.evaluation.conftest import Encoders
from tests.project import files_of

PARTS = {f"{kind}_right" for kind in ("style", "scene")}
METRICS = {*HEADLINE, *FURTHER, *PARTS}
ID = ["cell", "sampler", "training_seed", "person", "style", "scene", "caption", "repeat", "noise_seed"]
CELLS = ("adapter", *TRAINED)
Run = Callable[..., Tables]


@pytest.fixture(scope="module")
def run(tiny: Checkpoints, quick: Evaluate, encoders: Encoders) -> Run:
    """Evaluates into `work/` and `cache/` of a folder, with some inputs of the test's own."""

    def start(
        folder: Path, checkpoints: Checkpoints = tiny, own: Encoders = encoders, settings: Evaluate = quick
    ) -> Tables:
        logged: list[dict[str, float]] = []
        work, log = folder / "work", lambda numbers, _: logged.append(dict(numbers))
        tables = evaluate(checkpoints, settings, own, 7, work, log, folder / "cache")
        assert logged == [json.loads((work / "metrics.json").read_text())]
        return tables

    return start


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the finished evaluation: copy it, do not touch it."""
    return tmp_path_factory.mktemp("done")


@pytest.fixture(scope="module")
def found(run: Run, done: Path) -> Tables:
    """A finished evaluation."""
    return run(done)


@pytest.fixture
def cache(found: Tables, done: Path, tmp_path: Path) -> Path:
    """A copy of the finished evaluation's cache, where the next one in the test's folder looks for it."""
    return Path(shutil.copytree(done / "cache", tmp_path / "cache"))


def test_the_long_table_has_every_picture_once(found: Tables, quick: Evaluate) -> None:
    table = found.table
    assert table.columns.tolist()[: len(ID)] == ID and set(table.columns) == {*ID, *METRICS}
    assert not table.duplicated(ID[:-1]).any()
    assert table.groupby("cell", sort=False).size().to_dict() == dict.fromkeys(CELLS, quick.people * 6)
    seeds = set(table[["cell", "training_seed"]].itertuples(index=False, name=None))
    assert seeds == {("adapter", -1), ("noise_only", 7), ("tuned", 7)}
    assert table.groupby(["person", "style", "scene"])["noise_seed"].nunique().eq(1).all()
    means = table.groupby("cell")[sorted(METRICS)].mean()
    assert means.loc["adapter"].equals(means.loc["noise_only"])  # whose adapters are equal
    assert means.loc["tuned", "clip_t"] != means.loc["adapter", "clip_t"]


def test_the_headline_is_small_and_the_intervals_have_every_cell_and_contrast(found: Tables, done: Path) -> None:
    metrics = json.loads((done / "work" / "metrics.json").read_text())
    parts = {f"{contrast}_{metric}" for contrast in ("tuning", "gain") for metric in ("identity", "prompt")}
    assert set(metrics) == {"identity", "prompt", "detected", *parts}
    path, names = "runs/miniature/evaluate/metrics.json", [*metrics, "steering_identity"]
    assert sum(max(len(name), 7) + 4 for name in (path, *names)) <= 164  # the width of `dvc metrics show`; 4 at its end
    intervals = json.loads((done / "work" / "intervals.json").read_text())
    assert set(intervals) == {*CELLS, "tuning", "gain", "scale"}  # the encoders have no keys and values
    assert all(set(intervals[name]) == METRICS | set(spread.METRICS) for name in {*CELLS, "gain"})
    assert intervals["gain"]["identity"]["mean"] == pytest.approx(metrics["gain_identity"])
    for entry in (value for group in intervals.values() for value in group.values()):
        assert set(entry) == {"mean", "low", "high", "people", "seeds"} and entry["seeds"] == 1
    groups = set(found.contrasts["group"])
    assert {"all", "recontextualise", "restyle"} < groups and set(found.summary["group"]) == groups
    columns = pd.read_csv(done / "work" / "contrasts.csv").columns
    assert set(columns) >= {"p_holm", "verdict", "non_inferior", "seeds", "people"}


def test_further_noises_are_drawn_once_and_the_base_model_from_every_one(
    found: Tables, done: Path, quick: Evaluate
) -> None:
    """The first repeats are the plan's own pictures."""
    table = pd.read_parquet(done / "work" / "spread.parquet")
    shots = quick.diversity.people * quick.diversity.prompts * quick.diversity.seeds
    assert table.groupby("cell").size().to_dict() == dict.fromkeys((*CELLS, "base"), shots)
    folders = [path for path in (done / "cache").glob("*/") if path.name != "tables"]
    drawn = sorted(sum(len(pd.read_parquet(s)) for s in path.glob("*.parquet")) for path in folders)
    assert drawn == [shots // 2] * 3 + [shots] + [quick.people * 6] * 3
    assert (table["noise_seed"].isin(set(found.table["noise_seed"])) == (table["repeat"] == 0)).all()
    base = table["cell"] == "base"
    assert table[base]["layout"].to_numpy() == pytest.approx(1) and (table[~base]["layout"] < 1).all()


def test_again_gives_the_same_bytes(found: Tables, done: Path, run: Run, tmp_path: Path) -> None:
    run(tmp_path)
    assert files_of(tmp_path / "work") == files_of(done / "work")


def written(cache: Path) -> dict[Path, int]:
    """When each cached file was written."""
    return {path.relative_to(cache): path.stat().st_mtime_ns for path in cache.rglob("*.parquet")}


def test_what_is_cached_is_neither_drawn_nor_scored_again(
    found: Tables, run: Run, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no model is opened: an edit of a report costs the report."""
    before = written(cache)
    for name in ("open_pipeline", "open_scorers"):
        monkeypatch.setattr(f"lookahead.evaluation.evaluator.{name}", None)
    again = run(cache.parent)
    pd.testing.assert_frame_equal(again.table, found.table)
    pd.testing.assert_frame_equal(again.summary, found.summary)
    assert written(cache) == before


def test_goes_on_where_it_was_killed(found: Tables, run: Run, cache: Path) -> None:
    """Shards that are kept are not drawn again, missing ones are, and the numbers are the same."""
    gone = next(path for path in sorted(cache.rglob("00001.parquet")) if not path.parent.name.startswith("scores"))
    shutil.rmtree(next(gone.parent.glob("scores-*")))
    gone.unlink()
    before = written(cache)
    stray = gone.with_name(".00001.killed.parquet")
    stray.write_bytes(b"half")
    again = run(cache.parent)
    after = written(cache)
    assert gone.relative_to(cache) in after and not stray.exists()
    assert {path: time for path, time in after.items() if path in before} == before
    pd.testing.assert_frame_equal(again.table, found.table)


def test_another_scorer_draws_nothing_and_scores_anew(found: Tables, tiny: Checkpoints, run: Run, cache: Path) -> None:
    before = written(cache)
    faces = tiny.faces.model_copy(update={"report": tiny.faces.select})
    again = run(cache.parent, checkpoints=tiny.model_copy(update={"faces": faces}))
    new = written(cache).keys() - before
    assert all(path.parent.name.startswith("scores") or path.parent.name == "tables" for path in new)
    assert (found.table["clip_t"] == again.table["clip_t"]).all()
    assert (found.table["identity"] != again.table["identity"]).any()


def test_a_damaged_shard_is_refused(run: Run, cache: Path) -> None:
    for shard in cache.glob("*/00001.parquet"):
        shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(InputError, match=r"cache/.*/00001\.parquet is damaged .* remove it"):
        run(cache.parent)


def test_a_missing_encoder_is_refused(quick: Evaluate, encoders: Encoders, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody holds no encoder: train it first"):
        main_cells({**encoders, "tuned": tmp_path / "nobody"}, quick, 0)
    for name, words in (("authors", "nobody holds no encoder: evaluate.encoders"), ("tuned", "is a row already")):
        with pytest.raises(InputError, match=words):
            main_cells(encoders, quick.model_copy(update={"encoders": {name: str(tmp_path / "nobody")}}), 0)


def test_keys_and_values_and_other_encoders_make_further_cells_and_the_report_has_them(
    tiny: Checkpoints, run: Run, encoders: Encoders, quick: Evaluate, tmp_path: Path
) -> None:
    """An untuned KV-encoder gives the base's own keys and values, which change the pictures all the same."""
    encoder = Path(shutil.copytree(encoders["noise_only"], tmp_path / "encoder"))
    save_kv_encoder(encoder / KV_FILE, new_kv_encoder(open_pipeline(tiny).unet, 2, 2, 0))
    settings = quick.model_copy(update={"encoders": {"authors": str(encoder)}})
    found, work = run(tmp_path, own={**encoders, "tuned": encoder}, settings=settings), tmp_path / "work"
    means = found.table.groupby("cell")[sorted(METRICS)].mean()
    assert means.loc["tuned_without_kv"].equals(means.loc["noise_only"])  # the same image tokens, and nothing else
    assert means.loc["tuned", "clip_t"] != means.loc["noise_only", "clip_t"]
    assert means.loc["authors"].equals(means.loc["tuned"])
    assert set(found.contrasts["contrast"]) == {"authors", *(pair.name for pair in CONTRASTS[:3])}
    write_evaluation_report(found, work, grid_people=2)
    page = (work / "report.html").read_text()
    for words in (LABELS["tuned_without_kv"], "authors against lookahead", str(found.protocol["hash"])):
        assert words in page
    assert "http" not in page and "None" not in page and "nan" not in page.split("base64")[0]


def test_scale_of_photos() -> None:
    axes = np.eye(4)
    scale = photo_scale(list(axes), [[axes[0], axes[1]], [axes[1]], [], [axes[3]]])
    assert scale["same_person"].tolist() == pytest.approx([0.5, 1, np.nan, 1], nan_ok=True)
    assert scale["stranger"].tolist() == [0, 0, 0, 0]
