"""The chain on the tiny world: every stage publishes what the contract names, and a killed run goes on."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lookahead.artifacts import read_json
from lookahead.config import Checkpoints, read_params
from lookahead.stage import Job, Stage, run_stage
from lookahead.tracking import connect
from tests.chain.conftest import run_script
from tests.modules import ROOT
from tests.project import STAGES, WORLD, build_project, files_of, save_tree, tree_of

Change = Callable[[str, object], None]
CONTRACT = {
    "generate": {"table.parquet", "metrics.json", "samples.png", "shards/00000.parquet"},
    "features": {"table.parquet", "prompts.safetensors", "images/00000.safetensors"},
    "train/noise_only": {"encoder/ip-adapter.safetensors", "curves.csv", "metrics.json", "samples/step_0004.png"},
    "train/lookahead": {"encoder/ip-adapter.safetensors", "curves.csv", "metrics.json", "samples/step_0004.png"},
    "evaluate": {"metrics.json", "per_image.parquet", "report.html", "grids/people.png"},
}


def test_stages_publish_what_the_contract_names_with_lineage_outside_and_nothing_half_built(finished: Path) -> None:
    for stage in CONTRACT:
        files = set(files_of(finished / "runs" / WORLD / stage))
        assert files >= CONTRACT[stage] and not [name for name in files if name.endswith(".run.json")]
        assert read_json(finished / "runs" / WORLD / f"{stage}.run.json")["tracked"] is False
    assert not list((finished / "runs").rglob(".*"))
    left = [path.relative_to(finished / "state") for path in (finished / "state").rglob("*") if path.is_file()]
    assert {path.parts[0] for path in left} == {"pictures", "checkpoints", "measured.json"}  # for the next run


@pytest.mark.slow
def test_the_same_parameters_give_the_same_bytes(finished: Path, project: Path) -> None:
    shutil.rmtree(project / "runs")
    shutil.rmtree(project / "state" / "checkpoints")
    for name in STAGES:
        assert run_script(name) == ""
    for stage in CONTRACT:
        fresh, first = files_of(project / "runs" / WORLD / stage), files_of(finished / "runs" / WORLD / stage)
        assert [name for name in first if fresh.get(name) != first[name]] == [], stage


def run_cut_off() -> list[str]:
    """Run a stage that writes a letter into its workspace and is killed; what the workspaces hold."""

    def build(job: Job) -> None:
        with (job.work / "seen").open("a") as seen:
            seen.write("x")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_stage(Stage("features", ("features",), ("generate",), build), read_params(), WORLD)
    return [path.read_text() for path in Path("state").rglob("seen")]


def test_a_run_that_was_cut_off_finds_its_workspace_again_and_other_parameters_or_inputs_another(
    project: Path, change: Change
) -> None:
    before = files_of(project / "runs")
    run_cut_off()
    assert run_cut_off() == ["xx"] and files_of(project / "runs") == before
    change("worlds.tiny.features.batch_size", 3)
    assert sorted(run_cut_off()) == ["x", "xx"]
    (project / "runs" / WORLD / "generate" / "table.parquet").touch()
    assert sorted(run_cut_off()) == ["x", "x", "xx"]


@pytest.mark.slow
def test_the_parameters_of_a_training_are_those_that_it_ran_with(project: Path, change: Change) -> None:
    change("tracking.enabled", True)
    assert run_script("train") == ""
    client, experiment = connect(read_params().tracking)
    logged = {run.data.tags.get("lookahead.stage"): run.data.params for run in client.search_runs([experiment])}
    given, name = str(read_params().active.train.lookahead.weight), "train.lookahead.weight"
    assert (logged["train/noise_only"][name], logged["train/lookahead"][name]) == ("0.0", given)
    assert logged["train/noise_only"] | {name: given} == logged["train/lookahead"]  # and all else is shared


def test_a_broken_store_loses_no_model(project: Path, change: Change, capsys: pytest.CaptureFixture[str]) -> None:
    before = files_of(project / "runs" / WORLD / "features")
    change("tracking.enabled", True)
    (project / "state" / "mlflow.db").write_text("no database " * 200)
    shutil.rmtree(project / "runs" / WORLD / "features")
    assert run_script("features") == ""
    assert files_of(project / "runs" / WORLD / "features") == before
    assert "warning: not tracked" in capsys.readouterr().err


def test_every_entry_lets_threads_wait_passively_before_torch_is_imported() -> None:
    """So the package, which says so, comes before it."""
    for script in sorted((ROOT / "stages").glob("*.py")):
        names = re.findall(r"^(?:import|from) (\w+)", script.read_text(encoding="utf-8"), re.MULTILINE)
        first = names.index("lookahead") if "lookahead" in names else names.index("miniature")
        assert not {"torch", "diffusers", "transformers", "accelerate"} & set(names[:first]), script.name


def test_the_chain_and_tracking_reach_for_no_address(project: Path, change: Change, calls: list[str]) -> None:
    """With every socket refused it ends, and does not even try."""
    assert (project / "runs" / WORLD / "evaluate" / "report.html").is_file()
    change("tracking.enabled", True)
    assert run_script("features") == ""
    assert read_json(Path("runs/tiny/features.run.json"))["tracked"]
    assert calls == []


def dvc(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "true"}
    command = [sys.executable, "-m", "dvc", *words]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_dvc_runs_the_chain_once_then_only_what_changed(tiny_world: Checkpoints, tmp_path: Path) -> None:
    root = build_project(tmp_path, tiny_world)
    shutil.copy(ROOT / ".dvcignore", root / ".dvcignore")
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    chain = {name: stage for name, stage in pipeline["stages"].items() if not name.startswith("miniature-")}
    (root / "dvc.yaml").write_text(yaml.safe_dump(pipeline | {"stages": chain}), encoding="utf-8")
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    assert dvc(root, "init", "-q").returncode == 0
    first = dvc(root, "repro")
    assert first.returncode == 0, first.stdout + first.stderr
    metrics = (root / "runs" / WORLD / "evaluate" / "metrics.json").read_bytes()
    assert "Running stage" not in dvc(root, "repro").stdout
    tree = tree_of(tiny_world)
    tree["worlds"][WORLD]["evaluate"]["grid_people"] = 1
    save_tree(root, tree)
    again = dvc(root, "repro").stdout
    assert [name for name in STAGES if f"Running stage '{name}" in again] == ["evaluate"]
    save_tree(root, tree_of(tiny_world))
    assert "Running stage" not in dvc(root, "repro").stdout  # the run cache has it
    assert (root / "runs" / WORLD / "evaluate" / "metrics.json").read_bytes() == metrics
