"""A search from the first trial to the report, and started again, on the tiny world."""

import json
import shutil
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml
from PIL import Image

from lookahead import artifacts
from lookahead.config import Steering, with_overrides
from lookahead.evaluation import evaluator
from lookahead.search import objective
from lookahead.search.objective import Task
from lookahead.search.run import inputs_of, open_storage
from lookahead.training import loop
from tests.modules import PACKAGE
from tests.project import files_of
from tests.search.conftest import CHOICE, SPACE, make_search

FILES = {"best.yaml", "trials.csv", "metrics.json", "report.html", "front.png"}


@pytest.fixture(scope="module")
def done(run, tmp_path_factory) -> Path:
    """A finished search, how its trials ended, and what it said."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "notes.json").write_text(json.dumps(run(folder, make_search())))
    return folder


@pytest.fixture
def own(done: Path, tmp_path: Path) -> Path:
    """A copy that a test may go on with."""
    shutil.copytree(done, tmp_path / "own")
    return tmp_path / "own"


def trials(folder: Path) -> dict[str, list[optuna.trial.FrozenTrial]]:
    storage = open_storage(None, folder / "state" / "studies.db", make_search().heartbeat)
    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
    return {name: optuna.load_study(study_name=name, storage=storage).get_trials() for name in names}


def rows(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "out" / "trials.csv", keep_default_na=False)


def test_the_first_trial_is_params_yaml_and_all_are_recorded(done: Path) -> None:
    ends, said = json.loads((done / "notes.json").read_text())
    names = [name for name, _ in ends]
    assert names[:3] == ["trial-000", "trial-001", "trial-002"] and "confirm-0-11" in names
    assert all(set(figures) == {"identity", "prompt"} for _, figures in ends)
    assert len(said) == 1 and said[0].startswith("new study tiny-")
    table = rows(done)
    first = table.iloc[0]
    assert list(table["state"]) == ["complete"] * 3
    assert (first["low"], first["high"], first["density"], first["redraw"]) == (0.1, 1.0, "cosine", 3)
    assert (table["power"] != "").tolist() == (table["density"] == "power").tolist()


def test_the_results_are_whole_and_nothing_of_a_trial_is_left_behind(done: Path) -> None:
    out = done / "out"
    figures = {path.name for path in out.glob("*.png")}
    assert {path.name for path in out.iterdir()} >= FILES
    assert figures >= {"history_identity.png", "slices_prompt.png", "contour_low_high_identity.png"}
    for name in figures:
        with Image.open(out / name) as picture:
            assert picture.width > 300
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == len(figures)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["trials"] == {"complete": 3} and metrics["front"]
    assert set(metrics["validation"]["0"]["identity"]) >= {"mean", "low", "high"}
    patch = yaml.safe_load((out / "best.yaml").read_text())
    assert bool(patch) == (metrics["recommended"] != 0) and all(path.startswith("worlds.tiny.train.") for path in patch)
    assert not list((done / "state").rglob("*.safetensors"))


def test_twice_is_once_and_more_trials_are_added(own: Path, run) -> None:
    before = files_of(own / "out")
    assert run(own, make_search()) == ([], [])
    assert files_of(own / "out") == before
    ends, said = run(own, make_search(trials=4))
    assert [name for name, _ in ends if "trial" in name] == ["trial-003"] and said == []


def test_a_changed_space_is_a_new_study_and_says_so(own: Path, run) -> None:
    space = SPACE | {"low": SPACE["low"] | {"high": 0.4}}
    ends, said = run(own, make_search(space=space, trials=1))
    assert "other space than tiny-" in said[0] and ends[0][0] == "trial-000"
    assert len([name for name in trials(own) if "confirm" not in name]) == 2


def test_a_study_is_named_after_what_decides_its_numbers(world, evaluation, features, tmp_path, monkeypatch) -> None:
    def task(settings, search=None) -> Task:
        return Task(settings, evaluation(settings), search or make_search(), features, tmp_path)

    def inputs(settings=world, search=None):
        return inputs_of(task(settings, search))

    def changed(other: dict[str, str]) -> list[str]:
        return [name for name, digest in inputs().items() if other[name] != digest]

    assert changed(inputs(search=make_search(trials=9, workers=2, startup=5, contours=[]))) == []
    assert changed(inputs(search=make_search(seed=4))) == ["settings"]
    train = with_overrides(world.train, {"weight_decay": 0.02})
    assert changed(inputs(world.model_copy(update={"train": train}))) == ["settings"]
    steering = Steering(strength=0.2, timestep_min=0, timestep_max=999, preview_steps=1)
    steered = world.model_copy(update={"evaluate": world.evaluate.model_copy(update={"steering": steering})})
    assert changed(inputs(steered)) == []  # no trial is drawn with it
    assert task(steered).trial_settings().steering is None
    before = inputs()
    shutil.copytree(PACKAGE, tmp_path / "lookahead", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(artifacts, "__file__", str(tmp_path / "lookahead" / "artifacts.py"))
    for path, moved in (
        ("report/studies.py", []),
        ("search/results.py", []),
        ("stage.py", []),
        ("evaluation/contrasts.py", []),
        ("evaluation/scores.py", ["code"]),
        ("training/losses.py", ["code"]),
        ("world/diffusion.py", ["code"]),
        ("search/objective.py", ["code"]),
    ):
        file = tmp_path / "lookahead" / path
        text = file.read_text()
        file.write_text(text + "\n")
        assert changed(before) == moved, path
        file.write_text(text)


def test_a_failing_trial_is_recorded_and_the_study_goes_on(tmp_path: Path, run) -> None:
    space = {"rate": CHOICE | {"path": "learning_rate", "choices": [1e-3, 1e38]}}
    ends, _ = run(tmp_path, make_search(space=space, trials=3, contours=[], steps=3, startup=4))
    table = rows(tmp_path)
    failed = table[table["state"] == "fail"]
    assert len(failed) and failed["reason"].str.contains("training broke down").all()
    assert (table["state"] == "complete").sum() == 3 or len(failed) == 3
    assert [name for name, figures in ends if figures is None] == [f"trial-{n:03d}" for n in failed["number"]]


def test_under_a_constraint_trials_are_checked_with_the_networks_in_training(tmp_path, run, monkeypatch) -> None:
    opened: list[str] = []
    for module, name in ((loop, "open_training"), (objective, "open_evaluator"), (evaluator, "open_pipeline")):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, n=name, f=real: (opened.append(n), f(*a))[1])
    run(tmp_path, make_search(mode="constrained", trials=4, startup=1, steps=3))
    found = next(found for name, found in trials(tmp_path).items() if "confirm" not in name)
    assert all(set(trial.intermediate_values) <= {1, 2} and trial.intermediate_values for trial in found)
    complete = [trial for trial in found if trial.state == optuna.trial.TrialState.COMPLETE]
    assert complete and all("constraints:prompt" in trial.system_attrs for trial in complete)
    pruned = rows(tmp_path).query("state == 'pruned'")
    assert len(found) == 4 and pruned["reason"].str.contains("below the median").all()
    confirmed = sum(len(found) for name, found in trials(tmp_path).items() if "confirm" in name)
    assert opened.count("open_training") == len(found) + confirmed
    assert opened.count("open_evaluator") == opened.count("open_pipeline") == 2  # of both splits
