"""Studies: cells and tables in a tiny world by the stages' own functions, and what DVC knows of them."""

import json
import runpy
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from dvc.repo import Repo
from pydantic import ValidationError
from safetensors.torch import load_file

from lookahead.config import Checkpoints, Study, StudyCell, Train, World, read_params
from lookahead.errors import InputError
from lookahead.evaluation.study import read_study
from lookahead.stage import Job, Stage
from tests.evaluation.conftest import Encoders
from tests.modules import PACKAGE, ROOT, closure
from tests.project import write_protocol
from tests.tiny import build_portraits
from tests.training.conftest import features, settings  # noqa: F401  (fixtures)

EXEMPT = ("config", "tracking", "tracking.py", "mlflow_pages.py", "errors.py", "stage.py")  # as in tests/test_dvc.py
SCRIPTS = {name: runpy.run_path(str(ROOT / "stages" / f"{name}.py")) for name in ("cell", "study")}


def row(label: str, encoder: str, *against: str, **own: Any) -> StudyCell:
    empty = {"after": None, "train": {}, "sampling": {}}
    return StudyCell.model_validate({"label": label, "encoder": encoder, "against": list(against)} | empty | own)


CELLS = {
    "base": row("base model", "base"),
    "untuned": row("adapter untouched", "adapter", "base"),
    "weak": row("untuned at 0", "adapter", "untuned", sampling={"adapter_scale": 0.0}),
    "tuned": row("lookahead", "lookahead", "untuned"),
    "noise_only": row("noise loss only", "train", "untuned", train={"lookahead.weight": 0.0}),
    "kv": row("+ KV-encoder", "train", "noise_only", after="noise_only", train={"kv.enabled": True}),
    "kv_untuned": row("KV-encoder untuned", "train_untuned_kv", "noise_only", after="noise_only"),
}
FAST = {"fast": True, "scheduler": "LCMScheduler", "guidance_scale": 1.0, "kv_guidance.both": 1.0}


STUDY = Study(
    question="What does it do?",
    split="validation",
    people=2,
    photo_prompts=1,
    seeds=[0, 1],
    protocol={"num_inference_steps": 2},
    samplers={"full": {}, "fast": FAST},
    grid_people=2,
    cells=CELLS,
)
Build = Callable[[str, int], Path]


@pytest.fixture(scope="module")
def world(tiny: Checkpoints, settings: Train, tmp_path_factory: pytest.TempPathFactory) -> World:  # noqa: F811
    folder = tmp_path_factory.mktemp("protocol")
    build_portraits(folder / "portraits" / "validation", 2)
    path = write_protocol(folder / "tiny.yaml", str(folder / "portraits"))
    miniature = read_params().worlds["miniature"]
    evaluate = miniature.evaluate.model_copy(update={"batch_size": 10})
    own = {"evaluate": evaluate, "checkpoints": tiny, "train": settings.model_copy(update={"steps": 2})}
    return miniature.model_copy(update=own | {"name": str(path.with_suffix(""))})


@pytest.fixture(scope="module")
def runs(features: Path, encoders: Encoders, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """The other stages' outputs."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "features").symlink_to(features)
    (folder / "train" / "lookahead").mkdir(parents=True)
    (folder / "train" / "lookahead" / "encoder").symlink_to(encoders["tuned"])
    return folder


@pytest.fixture(scope="module")
def build(world: World, runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds a cell of the study where the stage would publish it."""
    pytest.MonkeyPatch().setitem(SCRIPTS["cell"]["stage"].__globals__, "CACHE", tmp_path_factory.mktemp("cache"))

    def cell(name: str, seed: int) -> Path:
        stage: Stage = SCRIPTS["cell"]["stage"]("tests", STUDY, name, seed)
        work = runs / stage.name
        work.mkdir(parents=True, exist_ok=True)
        stage.build(Job(world, runs, work, lambda *_: None))
        return work

    return cell


@pytest.fixture(scope="module")
def cells(build: Build) -> Path:
    for name, seed in product(STUDY.cells, STUDY.seeds):
        build(name, seed)
    return build("untuned", 0).parents[1]


def pictures(cells: Path, name: str, seed: int, sampler: str = "full") -> list[bytes]:
    (folder,) = (cells / name / str(seed) / "pictures" / name / sampler).iterdir()
    return [image for shard in sorted(folder.glob("*.parquet")) for image in pd.read_parquet(shard)["image"]]


def test_a_cell_holds_its_encoder_its_pictures_and_a_row_a_picture_and_sampler(cells: Path) -> None:
    assert (cells / "kv" / "0" / "training" / "encoder" / "kv.safetensors").is_file()
    assert not (cells / "untuned" / "0" / "training").exists()
    assert not (cells / "noise_only" / "0" / "training.resume").exists()
    table = pd.read_parquet(cells / "kv" / "0" / "per_image.parquet")
    assert table.groupby("sampler").size().to_dict() == {"full": 12, "fast": 12}  # 2 people, 6 prompts
    every = read_study(STUDY, cells)
    seeds = every.groupby("cell", sort=False)["training_seed"].unique().map(list).to_dict()
    trained = {name: [0, 1] for name in ("noise_only", "kv", "kv_untuned")}
    assert seeds == {"base": [-1], "untuned": [-1], "weak": [-1], "tuned": [0]} | trained


def test_only_what_is_trained_differs_between_seeds_and_samplers_draw_differently(cells: Path) -> None:
    for sampler in ("full", "fast"):
        assert pictures(cells, "untuned", 0, sampler) == pictures(cells, "untuned", 1, sampler)
        assert pictures(cells, "kv", 0, sampler) != pictures(cells, "kv", 1, sampler)
    assert pictures(cells, "untuned", 0, "full") != pictures(cells, "untuned", 0, "fast")
    # An adapter of strength zero draws the base model's.
    assert pictures(cells, "weak", 0) == pictures(cells, "base", 0) != pictures(cells, "untuned", 0)


def test_an_untuned_kv_encoder_is_added_to_a_training_without_one(cells: Path) -> None:
    other, own = (cells / name / "0" / "training" / "encoder" for name in ("noise_only", "kv_untuned"))
    assert (own / "ip-adapter.safetensors").read_bytes() == (other / "ip-adapter.safetensors").read_bytes()
    weights = load_file(own / "kv.safetensors")
    assert all(not w.any() for name, w in weights.items() if "lora_B" in name or name.endswith("up.weight"))
    assert pictures(cells, "kv_untuned", 0) != pictures(cells, "noise_only", 0)


def test_a_killed_cell_trains_no_second_time(cells: Path, build: Build) -> None:
    work = cells / "noise_only" / "0"

    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (work / "training").rglob("*.safetensors")}

    before = written()
    (work / "per_image.parquet").unlink()
    build("noise_only", 0)
    assert (work / "per_image.parquet").is_file() and written() == before


def test_the_table_has_intervals_contrasts_and_a_page(cells: Path, world: World, runs: Path, tmp_path: Path) -> None:
    stage: Stage = SCRIPTS["study"]["stage"]("tests", STUDY)
    stage.build(Job(world, runs, tmp_path, lambda *_: None))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    pairs = {f"{name} - {other}" for name, cell in CELLS.items() for other in cell.against}
    assert {name for name in metrics if ", fast" not in name} == {*CELLS, *pairs}
    assert metrics["kv"]["identity"]["seeds"] == 2 and metrics["untuned"]["identity"]["seeds"] == 1
    assert metrics["kv - noise_only"]["identity"].keys() == {"mean", "low", "high", "people", "seeds"}
    contrasts = pd.read_csv(tmp_path / "contrasts.csv")
    assert set(contrasts["verdict"]) <= {"higher", "lower", "not significant", "not measured"}
    page = (tmp_path / "report.html").read_text()
    assert all(cell.label in page for cell in CELLS.values()) and STUDY.question in page
    assert stage.inputs == tuple(f"tests/{n}/{s}" for n, c in CELLS.items() for s in ([0, 1] if c.trained else [0]))


def test_a_missing_cell_and_one_of_another_study_are_named(cells: Path) -> None:
    with pytest.raises(InputError, match=r"noise_only/7/per_image\.parquet"):
        read_study(STUDY.model_copy(update={"seeds": [0, 7]}), cells)
    with pytest.raises(InputError, match=r"base/0/per_image\.parquet is of another study"):
        read_study(STUDY.model_copy(update={"people": 3}), cells)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"against": ["nothing"]}, "names 'nothing', which is no earlier cell"),
        ({"after": "later"}, "names 'later', which is no earlier cell"),
        ({"encoder": "adapter", "train": {"lookahead.weight": 0.0}}, "its encoder is 'adapter', not train"),
    ],
)
def test_a_cell_that_makes_no_sense_is_refused(change: dict[str, object], message: str) -> None:
    tree = STUDY.model_dump()
    tree["cells"]["noise_only"] |= change
    with pytest.raises(ValidationError, match=message):
        Study.model_validate(tree)


def test_no_cell_of_a_study_is_steered_and_none_is_of_the_test_people() -> None:
    evaluate = read_params().worlds["miniature"].evaluation()
    assert evaluate.steering is not None and evaluate.split == "test"
    for study in read_params().studies.cells.values():
        own = study.evaluation(evaluate)
        assert own.steering is None and own.split == "validation" and own.portraits == evaluate.splits.validation


# What DVC knows


def stages_of(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "studies" / name / "dvc.yaml").read_text())["stages"])


@pytest.mark.parametrize("name", ["ablation", "curves"])
def test_dvc_makes_a_stage_of_every_cell_and_seed_and_finds_its_parameters(name: str) -> None:
    study = read_params().studies.cells[name]
    stages = {stage.name: stage for stage in Repo(str(ROOT)).stage.load_all(f"studies/{name}/dvc.yaml")}
    assert set(stages) == {"table"} | {f"cell@{cell}-{seed}" for cell in study.cells for seed in study.seeds}
    known = SCRIPTS["cell"]["stages"]()
    for stage in (stage for key, stage in stages.items() if key != "table"):
        assert str(stage.cmd).split("--variant ")[1] in known
        assert next(dep for dep in stage.deps if type(dep).__name__ == "ParamsDependency").read_params()


@pytest.mark.parametrize("name", ["ablation", "curves"])
def test_a_cell_depends_on_all_rows_that_its_own_comes_after(name: str) -> None:
    listed = stages_of(name)["cell"]["params"]
    for cell in read_params().studies.cells[name].cells.values():
        assert cell.after is None or f"studies.{name}.cells.{cell.after}.train" in listed


@pytest.mark.parametrize("name", ["ablation", "curves"])
@pytest.mark.parametrize("stage", ["cell", "table"])
def test_the_folders_of_a_stage_hold_what_it_imports(name: str, stage: str) -> None:
    listed = stages_of(name)[stage]
    script = next(word for word in listed["cmd"].split() if word.startswith("stages/"))
    assert script in listed["deps"]
    code = {dep.removeprefix("src/lookahead/") for dep in listed["deps"] if dep.startswith("src/lookahead/")}
    imports = {path.relative_to(PACKAGE) for path in closure(ROOT / script)}
    needed = {path for path in imports if path.parts[0] not in EXEMPT and path.name != "__init__.py"}
    assert not {str(path) for path in needed if not {path.parts[0], path.as_posix()} & code}
    assert not {part for part in code if not any(part in (p.parts[0], p.as_posix()) for p in needed)}
