"""What MLflow's store holds after stages and studies ran, and that no broken store stops one."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from PIL import Image

from lookahead.artifacts import write_json
from lookahead.config import Params, Tracking, read_params, with_overrides
from lookahead.mlflow_pages import headline_page
from lookahead.tracking import Origin, connect, open_recorder, open_study


@pytest.fixture
def params(here: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The committed parameters, with a store in the current folder."""
    monkeypatch.setenv("DVC_STAGE", "train@lookahead")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)  # which does not catch our runs
    tracking = Tracking(enabled=True, uri="sqlite:///state/mlflow.db", experiment="lookahead")
    return read_params().model_copy(update={"tracking": tracking})


def origin(stage: str, key: str = "k") -> Origin:
    (Path("input")).mkdir(exist_ok=True)
    Path("input/x").write_text("x")
    return Origin(stage, "miniature", {"train": {"steps": 3, "lookahead": {"weight": 0.5}}}, (Path("input"),), key)


def output() -> Path:
    out = Path("runs/miniature/train")
    write_json(out / "metrics.json", {"identity": {"mean": 0.25}, "note": "text", "kept": {"the person's": 3}})
    (out / "samples").mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(out / "samples" / "step_0002.png")
    return out


def folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def store(params: Params) -> tuple[MlflowClient, list[Run]]:
    client, experiment = connect(params.tracking)
    return client, list(client.search_runs([experiment]))


def named(runs: list[Run], stage: str) -> Run:
    return next(run for run in runs if run.data.tags.get("lookahead.stage") == stage)


def states(params: Params, stage: str) -> list[str]:
    return sorted(r.info.status for r in store(params)[1] if r.data.tags.get("lookahead.stage") == stage)


def test_a_run_holds_parameters_curves_metrics_pictures_inputs_and_tags(params: Params, tmp_path: Path) -> None:
    Path("dvc.lock").write_text("stages: {generate: {outs: [{path: input, md5: 0123.dir}]}}")
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
    assert [(given.dataset.name, given.dataset.digest) for given in run.inputs.dataset_inputs] == [
        ("input", "0123.dir")
    ]
    assert any(path.path.endswith(".png") for path in client.list_artifacts(run.info.run_id, "images"))
    assert run.info.status == "FINISHED"
    assert run.info.artifact_uri.startswith((tmp_path / "state" / "artifacts").as_uri())


def test_the_first_stage_starts_the_reproduction_and_the_others_join_it(params: Params) -> None:
    for stage in ("generate", "train"):
        open_recorder(params, origin(stage)).finish(output())
    _, runs = store(params)
    (parent,) = {named(runs, stage).data.tags["mlflow.parentRunId"] for stage in ("generate", "train")}
    assert len(runs) == 3
    metrics = next(run for run in runs if run.info.run_id == parent).data.metrics
    assert not metrics  # those of its stages are in their runs
    other = params.model_copy(update={"world": "sdxl"})
    open_recorder(other, origin("generate")).finish(output())
    assert len(store(params)[1]) == 5


def test_a_reproduction_carries_what_people_compare(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "heavy-weight")
    out = output()
    write_json(out / "metrics.json", {"identity": 0.6, "gain_identity": 0.05})
    (out / "headline.md").write_text("| lookahead | 0.600 |")
    Image.new("RGB", (4, 4)).save(folder(out / "grids") / "people.png")
    changed = with_overrides(params, {"worlds.miniature.train.lookahead.weight": 0.2})
    where = replace(origin("evaluate"), world="miniature", inputs=(Path("models/miniature/portraits/test"),))
    folder(where.inputs[0])
    open_recorder(changed, where).finish(out)
    client, runs = store(params)
    (run,) = (one for one in runs if one.data.tags.get("lookahead.kind") == "reproduction")
    assert run.info.run_name == "miniature heavy-weight" and run.data.tags["dvc.experiment"] == "heavy-weight"
    assert run.data.metrics == {"identity": 0.6, "gain_identity": 0.05}
    assert run.data.params["train.lookahead.weight"] == "0.2" and run.data.params["checkpoints.resolution"]
    assert "train.weight_decay" not in run.data.params  # the default
    assert [each.dataset.name for each in run.inputs.dataset_inputs] == ["models/miniature/portraits/test"]
    child, note = named(runs, "evaluate").info.run_id, run.data.tags["mlflow.note.content"]
    assert "| lookahead | 0.600 |" in note and f"/runs/{child}/artifacts" in note
    picture = re.search(r"get-artifact\?path=([^&]+)&run_uuid=(\w+)\)", note)
    assert picture is not None and picture[2] == run.info.run_id
    assert Path(client.download_artifacts(run.info.run_id, unquote(picture[1]))).is_file()


def test_the_experiment_has_a_description_and_a_view_with_the_headline_figures(params: Params) -> None:
    client, experiment = connect(params.tracking)
    tags = client.get_experiment(experiment).tags
    view = json.loads(tags["mlflow.sharedViewState.headline"])
    assert headline_page(experiment) in tags["mlflow.note.content"]
    assert {f"metrics.`{name}`" for name in ("identity", "prompt", "gain_identity")} < set(view["selectedColumns"])


def test_mlflows_own_variables_choose_store_and_experiment(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///state/another.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    client, experiment = connect(params.tracking)
    assert Path("state/another.db").is_file() and not Path("state/mlflow.db").exists()
    assert client.get_experiment(experiment).name == "mine"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # as good as unset
    assert connect(params.tracking)[0].tracking_uri.endswith("state/mlflow.db")


def test_a_failed_run_is_marked_and_keeps_its_curves(params: Params) -> None:
    recorder = open_recorder(params, origin("train"))
    recorder.log({"loss": 1.0}, 1)
    recorder.finish(None)
    run = named(store(params)[1], "train")
    assert (run.info.status, run.data.metrics) == ("FAILED", {"loss": 1.0})


LIVE = """
import sys
from pathlib import Path
from lookahead.config import Tracking, read_params
from lookahead.tracking import Origin, open_recorder, open_study
tracking = Tracking(enabled=True, uri="sqlite:///state/mlflow.db", experiment="lookahead")
params, key = read_params().model_copy(update={"tracking": tracking}), sys.argv[1]
if key == "study":
    recorder = open_study(params, Origin("search", "miniature", {}, (), key)).child(sys.argv[2], {"rate": 0.5}, {})
else:
    recorder = open_recorder(params, Origin("train", "miniature", {}, (), key))
recorder.log({"loss": 1.0}, 1)
print("open", flush=True)
sys.stdin.read()
recorder.finish(Path())
"""


def live(*arguments: str) -> subprocess.Popen[str]:
    """Start a process whose run is open until its standard input is closed."""
    command, pipe = [sys.executable, "-c", LIVE, *arguments], subprocess.PIPE
    return subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe)


def wait_until_open(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "open\n"


@pytest.mark.slow
def test_two_live_stages_do_not_end_each_others_runs_and_a_killed_one_is_ended(params: Params) -> None:
    one, two = live("one"), live("two")  # at the same moment, in a store that does not exist yet
    wait_until_open(one, two)
    assert states(params, "train") == ["RUNNING", "RUNNING"]
    one.kill()
    one.communicate()
    again = live("one")
    wait_until_open(again)
    assert states(params, "train") == ["KILLED", "RUNNING", "RUNNING"]
    for process in (two, again):
        process.communicate()
        assert process.returncode == 0
    assert states(params, "train") == ["FINISHED", "FINISHED", "KILLED"]


@pytest.mark.slow
def test_workers_share_a_studys_run_and_a_killed_trial_is_continued(params: Params) -> None:
    workers = [live("study", "trial 0"), live("study", "trial 1")]
    wait_until_open(*workers)
    for worker in workers:
        worker.kill()
        worker.communicate()
    study = open_study(params, Origin("search", "miniature", {}, (), "study"))
    trial = study.child("trial 0", {"rate": 0.5}, {"optuna.trial": "7"})
    trial.log({"loss": 2.0}, 2)
    trial.finish(output(), {"identity": 0.3})
    study.child("trial 1", {"rate": 0.5}, {}).finish(None, {"identity": 0.1})
    assert study.finish(output())["tracked"]
    client, runs = store(params)
    (parent,) = (run for run in runs if run.data.tags["lookahead.kind"] == "study")
    first, second = sorted(set(runs) - {parent}, key=lambda run: str(run.data.tags["lookahead.trial"]))
    assert {run.data.tags["mlflow.parentRunId"] for run in (first, second)} == {parent.info.run_id}
    assert first.data.params["rate"] == "0.5" and first.data.tags["optuna.trial"] == "7"
    assert (first.data.metrics["identity"], second.data.metrics["identity"]) == (0.3, 0.1)
    assert [run.info.status for run in (parent, first, second)] == ["FINISHED", "FINISHED", "FAILED"]
    assert "metrics.json" in {file.path for file in client.list_artifacts(parent.info.run_id)}


@pytest.mark.parametrize("late", [False, True])
def test_a_broken_store_is_one_warning(params: Params, capfd: pytest.CaptureFixture[str], late: bool) -> None:
    if late:
        recorder = open_recorder(params, origin("train"))
    Path("state").mkdir(exist_ok=True)
    Path("state/mlflow.db").write_text("this is no database, " * 100)
    if not late:
        recorder = open_recorder(params, origin("train"))
    for step in range(300):
        recorder.log({"loss": 0.0}, step)
    assert recorder.finish(output())["tracked"] is False
    said = capfd.readouterr().err
    assert said.count("warning: ") == 1, said


def test_switched_off_nothing_is_imported_or_written(params: Params, tmp_path: Path) -> None:
    code = (
        "import sys; from lookahead.config import read_params; from lookahead.tracking import Origin, open_recorder\n"
        "params = read_params(); off = params.tracking.model_copy(update={'enabled': False})\n"
        "r = open_recorder(params.model_copy(update={'tracking': off}), Origin('train', 'tiny', {}, (), 'k'))\n"
        "r.log({'loss': 1.0}, 1); assert r.finish(None) == {'tracked': False}\n"
        "assert 'mlflow' not in sys.modules; assert 'lookahead.tracking' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "state").exists()
