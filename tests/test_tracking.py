"""What MLflow's store holds after stages ran, and that no broken store stops a stage."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from lookahead.artifacts import write_json
from lookahead.config import Params, Tracking, read_params
from lookahead.tracking import NoRecorder, Origin, open_recorder, store_uri
from tests.modules import ROOT


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The committed parameters, with a store in a folder that becomes the current one."""
    read = read_params(ROOT / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("DVC_STAGE", "train@lookahead")
    tracking = Tracking(enabled=True, uri="sqlite:///state/mlflow.db", experiment="lookahead")
    return read.model_copy(update={"tracking": tracking})


def origin(stage: str, key: str = "k") -> Origin:
    (Path("input")).mkdir(exist_ok=True)
    Path("input/x").write_text("x")
    return Origin(stage, "tiny", {"train": {"steps": 3, "lookahead": {"weight": 0.5}}}, (Path("input"),), key)


def output() -> Path:
    out = Path("runs/tiny/train")
    write_json(out / "metrics.json", {"identity": {"mean": 0.25}, "note": "text", "kept": {"the person's": 3}})
    (out / "samples").mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(out / "samples" / "step_0002.png")
    return out


def store(params: Params) -> tuple[MlflowClient, list[Run]]:
    client = MlflowClient(store_uri(params.tracking))
    experiment = client.get_experiment_by_name("lookahead")
    assert experiment is not None
    return client, list(client.search_runs([experiment.experiment_id]))


def named(runs: list[Run], stage: str) -> Run:
    return next(run for run in runs if run.data.tags.get("lookahead.stage") == stage)


def test_a_run_holds_parameters_curves_metrics_pictures_inputs_and_tags(params: Params) -> None:
    recorder = open_recorder(params, origin("train"))
    for step in range(250):
        recorder.log({"loss": float(step)}, step)
    lineage = recorder.finish(output())
    client, runs = store(params)
    run = named(runs, "train")
    assert (lineage["tracked"], lineage["run"]) == (True, run.info.run_id)
    assert run.data.params["train.lookahead.weight"] == "0.5"
    assert [m.value for m in client.get_metric_history(run.info.run_id, "loss")] == [float(i) for i in range(250)]
    assert run.data.metrics["identity.mean"] == 0.25
    assert run.data.metrics["kept.the persons"] == 3  # MLflow refuses the apostrophe
    assert run.data.tags["dvc.stage"] == "train@lookahead"
    assert [given.dataset.name for given in run.inputs.dataset_inputs] == ["input"]
    assert any(path.path.endswith(".png") for path in client.list_artifacts(run.info.run_id, "images"))
    assert run.info.status == "FINISHED"


def test_a_dataset_is_logged_under_the_digest_that_dvc_gives_it(params: Params, tmp_path: Path) -> None:
    out = output()
    (out / "shards").mkdir()
    (out / "shards" / "00000.parquet").write_bytes(b"rows")
    open_recorder(params, origin("generate")).finish(out)
    run = named(store(params)[1], "generate")
    (made,) = (given.dataset for given in run.inputs.dataset_inputs if given.dataset.name == "generate")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "add", "-q", str(out)]):
        words = [sys.executable, "-m", *command] if command[0] == "dvc" else command
        subprocess.run(words, check=True, env=os.environ | {"DVC_NO_ANALYTICS": "true"})
    tracked = yaml.safe_load(out.with_suffix(".dvc").read_text())
    assert made.digest == tracked["outs"][0]["md5"]


def test_the_first_stage_makes_the_reproduction_and_the_others_join_it(params: Params) -> None:
    for stage in ("generate", "train"):
        open_recorder(params, origin(stage)).finish(output())
    _, runs = store(params)
    parents = {named(runs, stage).data.tags["mlflow.parentRunId"] for stage in ("generate", "train")}
    assert len(runs) == 3 and len(parents) == 1
    other = params.model_copy(update={"world": "sdxl"})
    open_recorder(other, origin("generate")).finish(output())
    assert len(store(params)[1]) == 5


def test_a_foreign_run_id_does_not_catch_our_runs(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert open_recorder(params, origin("train")).finish(output())["run"] != "0" * 32


def test_artifacts_lie_at_an_absolute_place(params: Params, tmp_path: Path) -> None:
    open_recorder(params, origin("train")).finish(output())
    client, _ = store(params)
    experiment = client.get_experiment_by_name("lookahead")
    assert experiment is not None
    assert experiment.artifact_location == (tmp_path / "state" / "artifacts").as_uri()


def test_a_failed_run_is_marked_and_keeps_its_curves(params: Params) -> None:
    recorder = open_recorder(params, origin("train"))
    recorder.log({"loss": 1.0}, 1)
    recorder.finish(None)
    run = named(store(params)[1], "train")
    assert (run.info.status, run.data.metrics) == ("FAILED", {"loss": 1.0})


def test_a_run_that_was_killed_is_closed_by_the_next_one(params: Params) -> None:
    open_recorder(params, origin("train"))
    open_recorder(params, origin("train")).finish(output())
    states = sorted(r.info.status for r in store(params)[1] if r.data.tags.get("lookahead.stage") == "train")
    assert states == ["FINISHED", "KILLED"]


def test_a_store_that_is_no_database_is_one_warning(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    Path("state").mkdir()
    Path("state/mlflow.db").write_text("this is no database, " * 100)
    assert isinstance(open_recorder(params, origin("train")), NoRecorder)
    assert capsys.readouterr().err.count("warning: ") == 1


def test_a_store_that_breaks_later_is_one_warning(params: Params, capsys: pytest.CaptureFixture[str]) -> None:
    recorder = open_recorder(params, origin("train"))
    Path("state/mlflow.db").write_text("gone")
    capsys.readouterr()
    for step in range(300):
        recorder.log({"loss": 0.0}, step)
    assert recorder.finish(output())["tracked"] is False
    assert capsys.readouterr().err.count("warning: ") == 1


def test_switched_off_nothing_is_imported_or_written(params: Params, tmp_path: Path) -> None:
    code = (
        "import sys; from lookahead.config import read_params; from lookahead.tracking import Origin, open_recorder\n"
        "params = read_params(); off = params.tracking.model_copy(update={'enabled': False})\n"
        "r = open_recorder(params.model_copy(update={'tracking': off}), Origin('train', 'tiny', {}, (), 'k'))\n"
        "r.log({'loss': 1.0}, 1); assert r.finish(None) == {'tracked': False}\n"
        "assert 'mlflow' not in sys.modules; assert 'lookahead.tracking' in sys.modules"
    )
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "state").exists()
