"""`lookahead adopt`: what it shows, that comments stay, and what it refuses."""

import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lookahead import cli
from lookahead.config import read_params
from lookahead.errors import InputError
from lookahead.search.adopt import _merge, patched
from lookahead.search.storage import open_storage
from tests.modules import ROOT
from tests.search.conftest import make_search

PATCH = {"lookahead": {"weight": 2.5e-05, "lora_scale": {"low": 0.25}}, "kv": {"enabled": True}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the committed parameters and a patch of them."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    put(tmp_path, {"worlds": {"miniature": {"train": PATCH}}})
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(root: Path, patch: object) -> None:
    path = root / "results" / "miniature" / "search" / "best.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# A patch\n" + yaml.safe_dump(patch))


def test_only_the_lines_of_the_patch_change(here: Path) -> None:
    before = (here / "params.yaml").read_text().splitlines()
    weight = read_params().worlds["miniature"].train.lookahead.weight
    shown = CliRunner().invoke(cli.app, ["adopt", "--yes"])
    assert shown.exit_code == 0, shown.output
    after = (here / "params.yaml").read_text().splitlines()
    assert len(before) == len(after)
    changes = [(old.strip(), new.strip()) for old, new in zip(before, after, strict=True) if old != new]
    assert changes == [
        (f"weight: {weight}", "weight: 2.5e-05"),
        ("low: 0.1", "low: 0.25"),
        ("enabled: false", "enabled: true"),
    ]
    assert all(f"-{'  ' * depth}{old}" in shown.output for depth, (old, _) in zip((4, 5, 4), changes, strict=True))
    assert [line for line in after if "#" in line] == [line for line in before if "#" in line]
    train = read_params().worlds["miniature"].train
    assert (train.lookahead.weight, train.lookahead.lora_scale.low, train.kv.enabled) == (2.5e-05, 0.25, True)


def test_who_says_no_changes_nothing(here: Path) -> None:
    before = (here / "params.yaml").read_bytes()
    shown = CliRunner().invoke(cli.app, ["adopt"], input="n\n")
    assert "+          low: 0.25" in shown.output and (here / "params.yaml").read_bytes() == before


def test_an_adopted_patch_changes_nothing_more(here: Path) -> None:
    CliRunner().invoke(cli.app, ["adopt", "--yes"])
    assert "changes nothing" in CliRunner().invoke(cli.app, ["adopt", "--yes"]).output
    put(here, {})
    assert "changes nothing" in CliRunner().invoke(cli.app, ["adopt", "--yes"]).output


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ({"worlds": {"miniature": {"train": {"wait": 1}}}}, "worlds.miniature.train.wait"),
        ({"worlds": {"miniature": {"train": {"steps": -1}}}}, "steps"),
    ],
)
def test_a_patch_that_does_not_fit_is_refused(here: Path, patch: object, said: str) -> None:
    put(here, patch)
    with pytest.raises(InputError, match=said):
        patched(Path("params.yaml"), Path("results/miniature/search/best.yaml"))


def test_without_a_search_there_is_nothing_to_adopt(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lookahead", "adopt", "--world", "sdxl"])
    with pytest.raises(SystemExit, match="make search"):
        cli.main()


def test_the_dashboard_needs_a_study(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lookahead", "dashboard"])
    with pytest.raises(SystemExit, match="run `make search` first"):
        cli.main()


def test_a_world_without_a_search_and_a_wrong_storage_are_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "stages").mkdir()
    (here / "stages" / "search.py").write_bytes((ROOT / "stages" / "search.py").read_bytes())
    monkeypatch.setattr(sys, "argv", ["lookahead", "search", "--world", "moon"])
    with pytest.raises(SystemExit, match="no search of 'moon'"):
        cli.main()
    with pytest.raises(InputError, match=r"several machines share postgresql\+psycopg"):
        open_storage("mysql://x", here / "studies.db", make_search().heartbeat)


def test_a_patch_may_set_what_a_world_inherits() -> None:
    """A parameter that params.yaml leaves to the defaults is added to the world."""
    tree = {"own": {"a": 1}}
    _merge(tree, {"own": {"b": {"c": 2}}})
    assert tree == {"own": {"a": 1, "b": {"c": 2}}}
