"""`dvc.yaml` against the code: every module that a stage imports is among its dependencies, and nothing else is."""

import shlex
from pathlib import Path

import pytest
from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from dvc.stage import PipelineStage

from lookahead.config import read_params
from lookahead.curves.cell import cells_of
from tests.dependencies import CHAIN, PIPELINES, exempt
from tests.modules import PACKAGE, ROOT, closure

Stages = dict[str, PipelineStage]


@pytest.fixture(scope="module")
def stages() -> Stages:
    """Every stage of the root's dvc.yaml, its parameters filled in."""
    return opened("dvc.yaml")


def script(stage: PipelineStage) -> Path:
    command = stage.cmd if isinstance(stage.cmd, str) else stage.cmd[0]
    return ROOT / next(word for word in shlex.split(command) if word.startswith("stages/"))


def sources(stage: PipelineStage) -> set[Path]:
    """The files of the package that a stage's dependencies cover; a folder covers all in it."""
    named = [Path(dep.fs_path) for dep in stage.deps if not isinstance(dep, ParamsDependency)]
    covered = {file for path in named if path.is_dir() for file in path.rglob("*.py")} | set(named)
    return {path for path in covered if path.suffix == ".py" and PACKAGE in path.parents and not exempt(path)}


def imports(path: Path) -> set[Path]:
    return {found for found in closure(path) if not exempt(found)}


def named(stages: Stages, start: str) -> list[PipelineStage]:
    found = [stage for name, stage in stages.items() if name.split("@")[0].split("-")[0] == start]
    assert found, f"dvc.yaml has no stage {start}"
    return found


def relative(paths: set[Path]) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in paths)


def test_train_is_a_matrix_of_both_variants(stages: Stages) -> None:
    assert {stage.name for stage in named(stages, "train")} == {"train@noise_only", "train@lookahead"}


def test_a_launcher_starts_the_stages_that_share_their_work_out_and_no_others(stages: Stages) -> None:
    launched = {name for name, stage in stages.items() if str(stage.cmd).startswith("$LOOKAHEAD_LAUNCH python ")}
    assert launched == {name for name, stage in stages.items() if "main(STAGES, assist)" in script(stage).read_text()}
    assert launched == {"generate", "features", "train@noise_only", "train@lookahead", "evaluate"}


@pytest.mark.parametrize("name", CHAIN)
def test_a_stage_depends_on_exactly_the_modules_that_it_imports(stages: Stages, name: str) -> None:
    for stage in named(stages, name):
        found, needed = sources(stage), imports(script(stage))
        assert found == needed, (
            f"{name}: python -m tests.dependencies (lacks {relative(needed - found)}, spare {relative(found - needed)})"
        )


@pytest.mark.parametrize("name", [*CHAIN, "miniature"])
def test_a_stage_depends_on_its_script(stages: Stages, name: str) -> None:
    for stage in named(stages, name):
        assert script(stage) in {Path(dep.fs_path) for dep in stage.deps if not isinstance(dep, ParamsDependency)}


def test_a_part_of_the_miniature_names_whatever_its_modules_import(stages: Stages) -> None:
    for stage in named(stages, "miniature"):
        missing = {path for source in sources(stage) for path in imports(source)} - sources(stage)
        assert not missing, f"{stage.name}: add {relative(missing)}"


def test_the_miniature_is_built_only_when_asked(stages: Stages) -> None:
    assert all(stage.frozen for stage in named(stages, "miniature"))
    assert not any(stage.frozen for name in CHAIN for stage in named(stages, name))


def test_editing_the_lookahead_loss_draws_no_data_again(stages: Stages) -> None:
    edited = PACKAGE / "method" / "lookahead.py"
    assert not any(edited in sources(stage) for name in ("generate", "features") for stage in named(stages, name))
    assert all(edited in sources(stage) for stage in named(stages, "train"))


@pytest.mark.parametrize("name", CHAIN)
def test_a_stage_reads_its_own_parameters_only(stages: Stages, name: str) -> None:
    for stage in named(stages, name):
        files = {Path(dep.fs_path).name: dep.params for dep in stage.deps if isinstance(dep, ParamsDependency)}
        read = files.pop("params.yaml")
        assert read and all(key.split(".")[0] == "worlds" for key in read), f"{name} reads {sorted(read)}"
        assert {key.split(".")[2] for key in read} <= {"checkpoints", name}
        # Of the protocol, a dataset depends on where the portraits are, alone: another sampler draws nothing again.
        assert {key for keys in files.values() for key in keys} == ({"splits"} if name == "generate" else set())


def opened(path: str) -> Stages:
    """Every stage of a pipeline of its own."""
    return {stage.name: stage for stage in Repo(str(ROOT)).stage.load_all(path)}


@pytest.fixture(scope="module")
def study() -> Stages:
    return opened("studies/ablation/dvc.yaml")


@pytest.fixture(scope="module")
def curves() -> Stages:
    return opened("studies/curves/dvc.yaml")


@pytest.mark.parametrize("path", [path for path in PIPELINES if path != "dvc.yaml"])
def test_a_stage_of_a_study_depends_on_exactly_what_it_imports(path: str) -> None:
    pipeline = opened(path)
    assert {name.split("@")[0] for name in pipeline} == set(PIPELINES[path])
    for stage in pipeline.values():
        assert sources(stage) == imports(script(stage)), "python -m tests.dependencies"
        assert script(stage) in {Path(dep.fs_path) for dep in stage.deps if not isinstance(dep, ParamsDependency)}


def test_the_study_has_a_cell_for_every_row_and_seed(study: Stages) -> None:
    """And its table comes after each of them: it reads the folder that they lie in."""
    ablation = read_params().studies.ablation
    cells = {f"{row}/{seed}" for row in ablation.rows for seed in ablation.seeds}
    made = {"/".join(Path(out.fs_path).parts[-2:]) for s in named(study, "cell") for out in s.outs}
    assert {place for place in made if not place.endswith(".json")} == cells
    graph = study["table"].repo.index.graph
    before = {stage.addressing for stage in graph.successors(study["table"])}
    assert {stage.addressing for stage in named(study, "cell")} <= before


def test_a_new_row_of_the_study_trains_its_own_cells_only(study: Stages) -> None:
    """A cell depends on its row and on those that rows come after, and reads no other: adding one changes nothing."""
    rows, prefix = read_params().studies.ablation.rows, "studies.ablation.rows."
    for stage in named(study, "cell"):
        row = Path(stage.outs[0].fs_path).parent.name
        read = {key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params}
        assert "studies.ablation" not in read
        found = {key.removeprefix(prefix) for key in read if key.startswith(prefix)}
        assert found == {row} | {other.after for other in rows.values() if other.after}


def test_editing_the_studys_page_trains_nothing_again(study: Stages) -> None:
    page = PACKAGE / "ablation" / "report.py"
    assert page in sources(study["table"])
    assert not any(page in sources(stage) for stage in named(study, "cell"))


def test_the_curves_have_every_cell_and_their_table_reads_each(curves: Stages) -> None:
    cells = {cell.name for cell in cells_of(read_params().studies.curves)}
    made = {Path(out.fs_path).name for n in ("base", "untuned", "tuned") for s in named(curves, n) for out in s.outs}
    assert {name for name in made if not name.endswith(".run.json")} == cells
    read = {Path(dep.fs_path) for dep in curves["table"].deps if not isinstance(dep, ParamsDependency)}
    assert {path.name for path in read if path.parent.name == "curves" and "runs" in path.parts} == cells
