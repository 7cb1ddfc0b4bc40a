"""A search from the first trial to the report, and started again, on the tiny world."""

import json
import shutil
from pathlib import Path

import optuna
import pandas as pd
import pytest
import yaml
from PIL import Image

from lookahead.config import Steering, read_evaluate, with_overrides
from lookahead.errors import InputError
from lookahead.search.inputs import inputs_of
from lookahead.search.objectives import protocol_of
from lookahead.search.storage import open_storage
from tests.search.conftest import SPACE, make_search

FILES = {"best.yaml", "trials.csv", "front.csv", "metrics.json", "report.html"}
FIGURES = {"front.png", "history.png", "importance.png", "slices.png", "contour_low_high.png"}


@pytest.fixture(scope="module")
def done(run, tmp_path_factory) -> Path:
    """A finished search, and what it told."""
    folder = tmp_path_factory.mktemp("search")
    notes, said = run(folder, make_search())
    (folder / "notes.json").write_text(json.dumps([notes.ends, said]))
    return folder


@pytest.fixture
def own(done: Path, tmp_path: Path) -> Path:
    """A copy that a test may go on with."""
    shutil.copytree(done, tmp_path / "own")
    return tmp_path / "own"


def trials(folder: Path) -> dict[str, list[optuna.trial.FrozenTrial]]:
    storage = open_storage(None, folder / "state" / "journal.log", make_search().heartbeat)
    found = optuna.get_all_study_summaries(storage)
    return {s.study_name: optuna.load_study(study_name=s.study_name, storage=storage).get_trials() for s in found}


def test_every_trial_is_there_and_the_first_is_params_yaml(done: Path) -> None:
    ends, said = json.loads((done / "notes.json").read_text())
    assert [(kind, slot) for kind, slot, _ in ends][:3] == [("trial", 0), ("trial", 1), ("trial", 2)]
    assert {kind for kind, _, _ in ends[3:]} == {"confirm"} and len(ends) in (4, 5)
    assert len(said) == 2 and said[0].startswith("new study tiny-")
    table = pd.read_csv(done / "out" / "trials.csv")
    assert list(table["state"]) == ["complete"] * 3
    first = table.iloc[0]
    assert (first["low"], first["high"], first["density"], first["redraw"]) == (0.1, 1.0, "cosine", 3)
    assert (table["identity.low"] <= table["identity.mean"]).all() and (table["prompt.high"] <= 1).all()
    assert table["power"].notna().tolist() == (table["density"] == "power").tolist()


def test_the_results_are_what_the_contract_names(done: Path) -> None:
    out = done / "out"
    assert {path.name for path in out.iterdir()} >= FILES | FIGURES
    for name in FIGURES:
        with Image.open(out / name) as picture:
            assert picture.width > 500
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == len(FIGURES) + 1 and "http" not in page.replace("http-equiv", "")
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["trials"] == {"complete": 3, "fail": 0, "pruned": 0} and metrics["front"]
    assert set(metrics["validation"]["0"]["identity"]) == {"mean", "low", "high"}
    assert str(metrics["recommended"]) in metrics["validation"]


def test_the_patch_is_of_the_recommended_setting(done: Path) -> None:
    patch = yaml.safe_load((done / "out" / "best.yaml").read_text())
    recommended = json.loads((done / "out" / "metrics.json").read_text())["recommended"]
    assert patch == {} if recommended == 0 else list(patch["worlds"]) == ["tiny"]


def test_nothing_of_a_trial_is_left_behind(done: Path) -> None:
    assert not list((done / "state").rglob("*.safetensors"))


def test_twice_is_once(own: Path, run) -> None:
    before = {path.name: path.read_bytes() for path in (own / "out").iterdir()}
    known = trials(own)
    notes, said = run(own, make_search())
    assert notes.ends == [] and said == []
    assert {name: len(found) for name, found in trials(own).items()} == {n: len(f) for n, f in known.items()}
    assert {path.name: path.read_bytes() for path in (own / "out").iterdir()} == before


def test_more_trials_are_added_to_those_that_are_there(own: Path, run) -> None:
    notes, said = run(own, make_search(trials=4))
    assert [slot for kind, slot, _ in notes.ends if kind == "trial"] == [3] and said == []


def test_a_changed_space_is_a_new_study_and_says_so(own: Path, run) -> None:
    space = SPACE | {"low": SPACE["low"] | {"high": 0.4}}
    notes, said = run(own, make_search(space=space, trials=1))
    assert "other space than tiny-" in said[0] and len([name for name in trials(own) if "confirm" not in name]) == 2
    assert [slot for kind, slot, _ in notes.ends if kind == "trial"] == [0]


def test_changed_fixed_parameters_are_a_new_study(own: Path, run, world) -> None:
    _, said = run(own, make_search(trials=1), with_overrides(world.train, {"weight_decay": 0.02}))
    assert "other settings than tiny-" in said[0]


def test_lookahead_guidance_of_the_evaluation_names_no_other_study(world, features) -> None:
    """No trial is drawn with it."""
    found = []
    for steering in (None, Steering(strength=0.2, timestep_min=0, timestep_max=999, preview_steps=1)):
        settings = with_overrides(read_evaluate(world.evaluate), {"steering": steering})
        own = world.model_copy(update={"evaluate": world.evaluate.model_copy(update={"steering": steering})})
        found.append(inputs_of(own, settings, make_search(), features))
        assert protocol_of(settings, "search", {}).steering is None
    assert found[0] == found[1]


def test_a_failing_trial_is_recorded_and_the_study_goes_on(tmp_path: Path, run) -> None:
    space = {"rate": {"path": "learning_rate", "kind": "categorical", "choices": [1e-3, 1e38], "when": {}}}
    notes, _ = run(tmp_path, make_search(space=space, trials=4, contours=[], steps=3, startup=4))
    table = pd.read_csv(tmp_path / "out" / "trials.csv", keep_default_na=False)
    assert len(table) == 4 and table["state"][0] == "complete"
    failed = table[table["state"] == "fail"]
    assert len(failed) and failed["reason"].str.contains("training broke down").all()
    assert {told["state"] for _, _, told in notes.ends} == {"complete", "failed"}
    assert "broke down" in (tmp_path / "out" / "report.html").read_text()


def test_a_study_of_failures_alone_ends_with_their_reason(tmp_path: Path, run, world) -> None:
    space = {"weight": {"path": "lookahead.weight", "kind": "float", "low": 0.5, "high": 1.5, "log": False, "when": {}}}
    train = with_overrides(world.train, {"learning_rate": 1e38})
    with pytest.raises(InputError, match="all of the first 3 trials failed, the last one so: training broke down"):
        run(tmp_path, make_search(space=space, trials=6, contours=[], steps=3), train)


def test_under_a_constraint_trials_are_checked_on_the_way(tmp_path: Path, run) -> None:
    search = make_search(mode="constrained", trials=5, startup=1, steps=3)
    run(tmp_path, search)
    found = next(found for name, found in trials(tmp_path).items() if "confirm" not in name)
    assert all(set(trial.intermediate_values) <= {1, 2} and trial.intermediate_values for trial in found)
    complete = [trial for trial in found if trial.state == optuna.trial.TrialState.COMPLETE]
    assert complete and all("constraints:prompt" in trial.system_attrs for trial in complete)
    pruned = [trial for trial in found if trial.state == optuna.trial.TrialState.PRUNED]
    assert len(complete) + len(pruned) == 5
    assert all("below the median" in row for row in _reasons(tmp_path, "pruned"))


def _reasons(folder: Path, state: str) -> list[str]:
    table = pd.read_csv(folder / "out" / "trials.csv", keep_default_na=False)
    return list(table[table["state"] == state]["reason"])
