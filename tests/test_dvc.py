"""`dvc.yaml` against the code: the folders that a stage lists hold all that it imports and that decides its output."""

import runpy
import shlex
import subprocess
from pathlib import Path

import pytest
from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from dvc.stage import PipelineStage

from tests.modules import PACKAGE, ROOT, closure

CHAIN = ("generate", "photos", "features", "train", "evaluate")
# Parameters are tracked as parameters; errors, publishing and tracking change no output.
EXEMPT = ("config", "tracking.py", "mlflow_pages.py", "errors.py", "stage.py", "__init__.py")
Stages = dict[str, PipelineStage]


@pytest.fixture(scope="module")
def stages() -> Stages:
    """Every stage of the root's dvc.yaml, its parameters filled in."""
    return {stage.name: stage for stage in Repo(str(ROOT)).stage.load_all("dvc.yaml")}


def named(stages: Stages, start: str) -> list[PipelineStage]:
    found = [stage for name, stage in stages.items() if name.split("@")[0] == start]
    assert found, f"dvc.yaml has no stage {start}"
    return found


def script(stage: PipelineStage) -> Path:
    return ROOT / next(word for word in shlex.split(str(stage.cmd)) if word.startswith("stages/"))


def listed(stage: PipelineStage) -> list[Path]:
    return [Path(dep.fs_path) for dep in stage.deps if not isinstance(dep, ParamsDependency)]


def code_of(stage: PipelineStage) -> set[str]:
    return {path.relative_to(PACKAGE).as_posix() for path in listed(stage) if PACKAGE in path.parents}


@pytest.mark.parametrize("name", CHAIN)
def test_the_folders_of_a_stage_hold_what_it_imports(stages: Stages, name: str) -> None:
    for stage in named(stages, name):
        imports = {path.relative_to(PACKAGE) for path in closure(script(stage))}
        needed = {path for path in imports if path.parts[0] not in EXEMPT and path.name != "__init__.py"}
        missing = {path for path in needed if not {path.parts[0], path.as_posix()} & code_of(stage)}
        assert not missing, f"{stage.name}: add the folders of {sorted(map(str, missing))}"
        spare = {part for part in code_of(stage) if not any(part in (p.parts[0], p.as_posix()) for p in needed)}
        assert not spare, f"{stage.name} imports nothing of {sorted(spare)}"


@pytest.mark.parametrize("name", CHAIN)
def test_a_script_names_the_same_code_for_its_workspace(stages: Stages, name: str) -> None:
    for stage in named(stages, name):
        assert set(runpy.run_path(str(script(stage)))["CODE"]) == code_of(stage)
        assert script(stage) in listed(stage)


def test_the_chains_graph_fits_a_screen() -> None:
    done = subprocess.run(["dvc", "dag", "evaluate"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert 10 < len(lines) <= 24 and max(map(len, lines)) <= 80


def test_an_experiment_in_a_copy_runs_the_copys_code(stages: Stages, tmp_path: Path) -> None:
    """The package is installed in editable mode, so that Python would find the workspace's."""
    assert all(str(stage.cmd).startswith("PYTHONPATH=src:$PYTHONPATH ") for stage in stages.values())
    (tmp_path / "src" / "lookahead").mkdir(parents=True)
    (tmp_path / "src" / "lookahead" / "__init__.py").write_text("WHOSE = 'the copy'")
    command = "PYTHONPATH=src:$PYTHONPATH python -c 'import lookahead; print(lookahead.WHOSE)'"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "the copy\n"


def test_editing_the_lookahead_loss_draws_no_data_again(stages: Stages) -> None:
    readers = {name.split("@")[0] for name, stage in stages.items() if "method" in code_of(stage)}
    assert "train" in readers and not readers & {"generate", "photos", "features"}


@pytest.mark.parametrize("name", CHAIN)
def test_a_stage_reads_its_own_parameters_only(stages: Stages, name: str) -> None:
    for stage in named(stages, name):
        files = {Path(dep.fs_path).name: dep.params for dep in stage.deps if isinstance(dep, ParamsDependency)}
        read = files.pop("params.yaml")
        assert read and all(key.split(".")[0] in ("worlds", "defaults") for key in read), f"{name} reads {sorted(read)}"
        assert {key.split(".")[-1] for key in read} <= {"checkpoints", name}
        # Of the protocol, what is encoded depends on where the portraits are, alone; what is drawn, on nothing.
        assert {key for keys in files.values() for key in keys} == ({"splits"} if name == "features" else set())
