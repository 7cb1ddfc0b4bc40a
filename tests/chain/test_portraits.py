"""Portraits: without any the chain still ends, on invented people; those that are added later draw nothing anew."""

import json
import runpy
import shutil
from pathlib import Path

import pytest
import yaml

from lookahead.config import Checkpoints, read_params
from lookahead.stage import input_paths
from tests.chain.conftest import run_script
from tests.project import PROTOCOL, STAGES, WORLD, build_project, column_of, save_tree, tree_of, write_protocol
from tests.tiny import TREE, build_portraits

NAMES = ["anna", "bela", "cora", "dina", "elsa", "fred"]  # with three last names 18 people


def test_without_portraits_the_chain_ends_on_people_whom_the_training_never_saw(
    tiny_world: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build_project(tmp_path, tiny_world)
    monkeypatch.chdir(root)
    shutil.rmtree(f"models/{WORLD}/portraits/test")
    write_protocol(Path(f"protocols/{WORLD}.yaml"), f"models/{WORLD}/portraits", **PROTOCOL | {"people": 2})
    names = TREE | {"people": TREE["people"] | {"parts": {"first": NAMES, "last": ["abel", "berg", "cole"]}}}
    Path(f"prompts/{WORLD}.yaml").write_text(yaml.safe_dump(names, sort_keys=False), encoding="utf-8")
    tree = tree_of(tiny_world)
    assert run_script("generate").startswith("error: there are no portraits, and of 3 invented people only 1")
    tree["worlds"][WORLD]["generate"] |= {"people": 16, "photos": 2, "stylised": 1, "shard_size": 24}
    save_tree(root, tree)
    for name in STAGES:
        assert run_script(name) == ""
    runs = root / "runs" / WORLD
    assert set(column_of(runs / "features", "identity")) == set(range(16)) - {0, 5, 10, 15}
    protocol, intervals = (json.loads((runs / "evaluate" / f"{n}.json").read_text()) for n in ("protocol", "intervals"))
    assert protocol["people"] == ["000000", "000015"]
    said = "no portraits were given: the people are invented"
    assert protocol["invented"].startswith(said) and intervals["invented"].startswith(said)
    assert said in (runs / "evaluate" / "report.html").read_text(encoding="utf-8")


def test_portraits_that_are_added_later_draw_nothing_anew_and_are_left_out_of_what_is_encoded(project: Path) -> None:
    world, folder = read_params().of(WORLD), Path(f"models/{WORLD}/portraits/validation")
    read = {}
    for name in ("generate", "features"):
        (stage,) = runpy.run_path(f"stages/{name}.py")["STAGES"].values()
        before = {section: world.settings(section) for section in stage.sections}
        build_portraits(folder, 1)
        assert before == {section: world.settings(section) for section in stage.sections}
        read[name] = any(
            folder == path or folder in path.parents for path in input_paths(stage, before, project / "runs" / WORLD)
        )
    assert read == {"generate": False, "features": True}
