"""The command, its output, and what MLflow's store holds of a study."""

import pytest
from mlflow import MlflowClient

from lookahead.artifacts import read_json
from tests.project import WORLD
from tests.search.project import build_search, start
from tests.training.conftest import features  # noqa: F401  (fixture)


@pytest.mark.slow
def test_a_search_of_two_workers_is_published_and_its_trials_are_runs(tiny_world, features, tmp_path) -> None:  # noqa: F811
    build_search(tmp_path, tiny_world, features, "sqlite:///state/mlflow.db", trials=2, workers=2)
    for _ in range(2):
        assert start(tmp_path).wait() == 0, (tmp_path / "worker.log").read_text()[-3000:]
    out = tmp_path / "results" / WORLD / "search"
    assert (out / "report.html").is_file() and not list((tmp_path / "state" / "work").rglob("*.csv"))
    assert read_json(tmp_path / "runs" / WORLD / "search.run.json")["tracked"] is True
    assert "run" not in read_json(out / "metrics.json")

    client = MlflowClient(f"sqlite:///{tmp_path}/state/mlflow.db")
    experiment = client.get_experiment_by_name("lookahead")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["lookahead.kind"] == "study"]
    children = [run for run in runs if run.data.tags["lookahead.kind"] == "trial"]
    names = [run.data.tags["lookahead.trial"] for run in children]
    assert {"trial-000", "trial-001", "confirm-0-11"} <= set(names) and len(names) == len(set(names))
    for run in children:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id and run.info.status == "FINISHED"
        assert {"identity", "prompt", "loss_noise"} <= set(run.data.metrics)
        assert any(path.path.endswith(".png") for path in client.list_artifacts(run.info.run_id, "images"))
        assert len(client.get_metric_history(run.info.run_id, "loss_noise")) == 2
    first = next(run for run in children if run.data.tags["lookahead.trial"] == "trial-000")
    assert first.data.params["density"] == "cosine" and first.data.tags["optuna.trial"] == "0"
    assert {"report.html"} <= {path.path for path in client.list_artifacts(parent.info.run_id)}
