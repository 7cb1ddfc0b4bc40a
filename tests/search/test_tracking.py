"""The command, its output, and what MLflow's store holds of a study."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from lookahead.artifacts import read_json
from lookahead.config import Checkpoints
from tests.project import WORLD
from tests.search.project import build_search, start
from tests.training.conftest import features  # noqa: F401  (fixture)


@pytest.fixture(scope="module")
def project(tiny_world: Checkpoints, features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A project in which `lookahead search` ran twice."""
    root = tmp_path_factory.mktemp("project")
    build_search(root, tiny_world, features, "sqlite:///state/mlflow.db", trials=2, workers=2)
    for _ in range(2):
        assert start(root).wait() == 0, (root / "worker.log").read_text()[-3000:]
    return root


@pytest.fixture(scope="module")
def runs(project: Path) -> list[Run]:
    client = MlflowClient(f"sqlite:///{project}/state/mlflow.db")
    experiment = client.get_experiment_by_name("lookahead")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id]))


def of_kind(runs: list[Run], kind: str) -> list[Run]:
    return [run for run in runs if run.data.tags.get("lookahead.kind") == kind]


@pytest.mark.slow
def test_the_results_and_the_lineage_are_published(project: Path) -> None:
    out = project / "results" / WORLD / "search"
    assert (out / "report.html").is_file() and not list((project / "state" / "work").rglob("*.csv"))
    assert read_json(project / "runs" / WORLD / "search.run.json")["tracked"] is True
    assert "run" not in read_json(out / "metrics.json")


@pytest.mark.slow
def test_there_is_one_run_for_the_study_and_one_for_each_trial(project: Path, runs: list[Run]) -> None:
    (parent,) = of_kind(runs, "study")
    children = of_kind(runs, "trial")
    assert sorted(run.data.tags["lookahead.slot"] for run in children) == ["0", "1"]
    for run in [*children, *of_kind(runs, "confirm")]:
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.info.status == "FINISHED" and run.data.tags["trial.state"] == "complete"
        assert {"identity.mean", "identity.low", "prompt.high", "loss_noise"} <= set(run.data.metrics)
        assert run.data.tags["optuna.study"] == parent.data.tags["lookahead.study"]
        assert run.data.tags["lookahead.world"] == WORLD
    first = next(run for run in children if run.data.tags["lookahead.slot"] == "0")
    assert first.data.params["density"] == "cosine" and first.data.tags["optuna.trial"] == "0"


@pytest.mark.slow
def test_pictures_curves_and_figures_are_there(project: Path, runs: list[Run]) -> None:
    client = MlflowClient(f"sqlite:///{project}/state/mlflow.db")
    (parent,) = of_kind(runs, "study")
    assert {"report.html", "front.png"} <= {path.path for path in client.list_artifacts(parent.info.run_id)}
    for run in of_kind(runs, "trial"):
        assert any(path.path.endswith(".png") for path in client.list_artifacts(run.info.run_id, "images"))
        assert len(client.get_metric_history(run.info.run_id, "loss_noise")) == 2
