"""The chain on the tiny world: every stage publishes what the contract names, and a killed run goes on."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lookahead.artifacts import read_json
from lookahead.config import Checkpoints, read_params
from lookahead.stage import Job, Stage, cores, run_stage
from lookahead.tracking import connect
from tests.modules import ROOT
from tests.project import STAGES, WORLD, build_project, files_of, run, save_tree, tree_of

Change = Callable[[str, object], None]
CONTRACT = {
    "generate": {"table.parquet", "metrics.json", "samples.png", "shards/00000.parquet"},
    "features": {"table.parquet", "prompts.safetensors", "images/00000.safetensors"},
    "train/noise_only": {"encoder/ip-adapter.safetensors", "curves.csv", "metrics.json", "samples/step_0004.png"},
    "train/lookahead": {"encoder/ip-adapter.safetensors", "curves.csv", "metrics.json", "samples/step_0004.png"},
    "evaluate": {"metrics.json", "per_image.parquet", "report.html", "grids/people.png"},
}


@pytest.mark.parametrize("stage", CONTRACT)
def test_a_stage_publishes_what_the_contract_names(finished: Path, stage: str) -> None:
    assert set(files_of(finished / "runs" / WORLD / stage)) >= CONTRACT[stage]


def test_nothing_half_built_is_left(finished: Path) -> None:
    assert not list((finished / "runs").rglob(".*"))
    left = [path.relative_to(finished / "state") for path in (finished / "state").rglob("*") if path.is_file()]
    assert {path.parts[0] for path in left} == {"pictures", "checkpoints"}  # which the next run may continue


def test_lineage_lies_beside_the_outputs_and_not_in_them(finished: Path) -> None:
    for stage in CONTRACT:
        assert read_json(finished / "runs" / WORLD / f"{stage}.run.json")["tracked"] is False
    inside = [name for stage in CONTRACT for name in files_of(finished / "runs" / WORLD / stage)]
    assert not [name for name in inside if name.endswith(".run.json")]


@pytest.mark.slow
def test_the_same_parameters_give_the_same_bytes(finished: Path, project: Path) -> None:
    shutil.rmtree(project / "runs")
    shutil.rmtree(project / "state" / "checkpoints")
    for name in STAGES:
        run(name)
    for stage in CONTRACT:
        fresh, first = files_of(project / "runs" / WORLD / stage), files_of(finished / "runs" / WORLD / stage)
        assert [name for name in first if fresh.get(name) != first[name]] == [], stage


def failing(text: str) -> Stage:
    def build(job: Job) -> None:
        (job.work / "seen").write_text((job.work / "seen").read_text() + text if (job.work / "seen").exists() else text)
        raise RuntimeError("killed")

    return Stage("features", ("features",), ("generate",), build)


def test_a_run_that_was_cut_off_finds_its_workspace_again(project: Path) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="killed"):
            run_stage(failing("x"), read_params(), WORLD)
    assert [path.read_text() for path in Path("state").rglob("seen")] == ["xx"]


def test_other_parameters_or_inputs_have_another_workspace(project: Path) -> None:
    for changed in (False, True):
        params = read_params().model_copy(update={"worlds": {WORLD: type(read_params().active)(**_world(changed))}})
        with pytest.raises(RuntimeError, match="killed"):
            run_stage(failing("x"), params, WORLD)
    (project / "runs" / WORLD / "generate" / "table.parquet").touch()
    with pytest.raises(RuntimeError, match="killed"):
        run_stage(failing("x"), read_params(), WORLD)
    assert [path.read_text() for path in Path("state").rglob("seen")] == ["x", "x", "x"]


def _world(changed: bool) -> dict[str, object]:
    world: dict[str, object] = read_params().active.model_dump()
    return world | {"features": {"batch_size": 3}} if changed else world


def test_a_failure_leaves_the_earlier_output(project: Path) -> None:
    before = files_of(project / "runs")
    with pytest.raises(RuntimeError, match="killed"):
        run_stage(failing("x"), read_params(), WORLD)
    assert files_of(project / "runs") == before


def test_the_parameters_of_a_training_are_those_that_it_ran_with(project: Path, change: Change) -> None:
    change("tracking.enabled", True)
    run("train")
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
    run("features")
    assert files_of(project / "runs" / WORLD / "features") == before
    assert "warning: not tracked" in capsys.readouterr().err


def test_every_entry_lets_threads_wait_passively_before_torch_is_imported() -> None:
    for script in sorted((ROOT / "stages").glob("*.py")):
        names = [name.split(".")[0] for name in imports(script)]
        first = names.index("lookahead") if "lookahead" in names else names.index("miniature")
        assert not {"torch", "diffusers", "transformers", "accelerate"} & set(names[:first]), script.name


def imports(script: Path) -> list[str]:
    """The modules that a script imports at its top, in order."""
    nodes = ast.parse(script.read_text(encoding="utf-8")).body
    pairs = ((node, node.names) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom))
    return [node.module or "" if isinstance(node, ast.ImportFrom) else names[0].name for node, names in pairs]


def test_the_cores_are_those_this_process_may_use() -> None:
    assert cores() == len(os.sched_getaffinity(0))


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
