"""`lookahead adopt`: what it shows, that comments stay, and what it refuses."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lookahead import cli
from lookahead.config import read_params
from lookahead.errors import InputError
from lookahead.search.run import open_storage
from tests.search.conftest import make_search

PATCH = {"lookahead.weight": 2.5e-05, "lookahead.lora_scale.low": 0.25, "kv.enabled": True}


def put(root: Path, patch: dict[str, object]) -> None:
    path = root / "results" / "miniature" / "search" / "best.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("# A patch\n" + yaml.safe_dump({f"worlds.miniature.train.{k}": v for k, v in patch.items()}))


def test_only_what_the_patch_names_changes_and_only_after_a_yes(here: Path) -> None:
    before = (here / "params.yaml").read_text()
    put(here, PATCH)
    shown = CliRunner().invoke(cli.app, ["adopt"], input="n\n")
    assert "low: 0.25" in shown.output and (here / "params.yaml").read_text() == before
    assert CliRunner().invoke(cli.app, ["adopt", "--yes"]).exit_code == 0
    after = (here / "params.yaml").read_text()
    added = [line.strip() for line in after.splitlines() if line not in before.splitlines()]
    assert {"weight: 2.5e-05", "low: 0.25"} <= set(added) and len(added) <= 5
    assert [line for line in after.splitlines() if "#" in line] == [line for line in before.splitlines() if "#" in line]
    train = read_params().worlds["miniature"].train
    assert (train.lookahead.weight, train.lookahead.lora_scale.low, train.kv.enabled) == (2.5e-05, 0.25, True)
    assert "changes nothing" in CliRunner().invoke(cli.app, ["adopt", "--yes"]).output
    put(here, {})
    assert "changes nothing" in CliRunner().invoke(cli.app, ["adopt", "--yes"]).output


@pytest.mark.parametrize(("patch", "said"), [({"wait": 1}, "train.wait"), ({"steps": -1}, "steps")])
def test_a_patch_that_does_not_fit_is_refused(here: Path, patch: dict[str, object], said: str) -> None:
    put(here, patch)
    refused = CliRunner().invoke(cli.app, ["adopt", "--yes"]).exception
    assert isinstance(refused, InputError) and said in str(refused)


def test_a_storage_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"give postgresql\+psycopg"):
        open_storage("mysql://x", tmp_path / "studies.db", make_search().heartbeat)
