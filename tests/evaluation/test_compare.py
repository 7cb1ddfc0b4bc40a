"""Comparisons: differences by hand, what is refused, the page and the command."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from lookahead import cli
from lookahead.artifacts import digest, write_json, write_parquet
from lookahead.config import read_params
from lookahead.errors import InputError
from lookahead.evaluation.album import ALBUM, REFERENCE
from lookahead.evaluation.compare import FILES, compare, read_run
from lookahead.evaluation.pictures import png
from lookahead.report.compare_page import table, write_page
from lookahead.tracking import Origin, open_recorder
from tests.modules import ROOT

STYLES = ["photo", "oil"]
PEOPLE = 4
Tree = dict[str, Any]


def protocol(**changes: object) -> Tree:
    told: Tree = {
        "people": [f"{i:03d}" for i in range(PEOPLE)],
        "groups": {"recontextualise": ["photo"], "restyle": ["oil"]},
        "settings": {"steps": 2, "seed": 1},
        "judges": {"scorer": ["a", None]},
    }
    told |= copy.deepcopy(changes)
    return told | {"hash": digest(told)}


def rows(shift: float, method: str) -> list[Tree]:
    """Identity 0.1, 0.2, ... by person, higher by `shift` in oil."""
    return [
        {
            "method": method,
            "person": person,
            "style": style,
            "scene": "snow",
            "repeat": 0,
            "identity": 0.1 * (person + 1) + shift * (style == "oil"),
            "prompt_right": float(person > 0),
            "detected": 1.0,
        }
        for person in range(PEOPLE)
        for style in STYLES
    ]


def picture(method: str, person: int, style: str, scene: str, shade: int) -> Tree:
    image = png(Image.new("RGB", (8, 8), (shade, 40 * person, 0)))
    return {"method": method, "person": person, "style": style, "scene": scene, "repeat": 0, "image": image}


def build(folder: Path, shift: float, told: Tree) -> Path:
    """What an evaluation leaves: methods `adapter` and `tuned`, two people shown."""
    table = pd.DataFrame(rows(0.0, "adapter") + rows(shift, "tuned")).sample(frac=1, random_state=1)
    write_parquet(folder / "per_image.parquet", pa.Table.from_pandas(table, preserve_index=False))
    write_json(folder / "protocol.json", told)
    shown = [picture(REFERENCE, person, "", "", 0) for person in range(2)]
    shown += [picture("tuned", person, style, "snow", int(99 + 100 * shift)) for person in range(2) for style in STYLES]
    write_parquet(folder / ALBUM, pa.Table.from_pylist(shown))
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return build(tmp_path / "one", 0.0, protocol())


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return build(tmp_path / "other", 0.25, protocol())


def test_differences_are_those_by_hand(one: Path, other: Path) -> None:
    found = compare([read_run("a", one, "tuned"), read_run("b", other, "tuned")], 500)
    by_name = {(d.group, d.figure): d for d in found}
    assert by_name["restyle", "identity"].change.mean == pytest.approx(0.25)
    assert by_name["all", "identity"].change.mean == pytest.approx(0.125)
    assert by_name["all", "identity"].baseline == pytest.approx(0.25)
    assert by_name["restyle", "identity"].mean == pytest.approx(0.5)
    assert by_name["restyle", "identity"].verdict == "higher"
    for name in (("recontextualise", "identity"), ("all", "prompt"), ("restyle", "detection")):
        assert by_name[name].change.mean == 0 and by_name[name].verdict == "no difference"
    assert {d.group for d in found} == {"all", "recontextualise", "restyle"}
    back = compare([read_run("b", other, "tuned"), read_run("a", one, "tuned")], 500)
    assert {d.verdict for d in back if (d.group, d.figure) == ("restyle", "identity")} == {"lower"}


def test_an_interval_that_holds_zero_is_no_difference(one: Path, tmp_path: Path) -> None:
    moved = build(tmp_path / "moved", 0.0, protocol())
    table = pd.read_parquet(moved / "per_image.parquet")
    table["identity"] += np.where(table["person"] % 2, 0.2, -0.15)
    write_parquet(moved / "per_image.parquet", pa.Table.from_pandas(table, preserve_index=False))
    (found,) = [
        d
        for d in compare([read_run("a", one, "tuned"), read_run("b", moved, "tuned")], 2000)
        if (d.group, d.figure) == ("all", "identity")
    ]
    assert found.change.mean == pytest.approx(0.025) and found.verdict == "no difference"


def test_the_same_run_differs_in_nothing(one: Path) -> None:
    found = compare([read_run(label, one, "tuned") for label in "abc"], 100)
    assert len(found) == 2 * 3 * 3
    assert {d.change.measured() for d in found} == {(0.0, 0.0, 0.0)}
    assert {d.verdict for d in found} == {"no difference"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"steps": 9, "seed": 1}}, r"differ in settings\.steps:"),
        ({"settings": {"steps": 9, "seed": 2}, "people": []}, r"people, settings\.seed, settings\.steps:"),
        ({"judges": {"scorer": ["b", None]}}, r"judges\.scorer:"),
    ],
)
def test_another_protocol_is_refused_and_its_keys_are_named(change: Tree, said: str, one: Path, tmp_path: Path) -> None:
    strange = build(tmp_path / "strange", 0.0, protocol(**change))
    with pytest.raises(InputError, match=said):
        compare([read_run("a", one, "tuned"), read_run("b", strange, "tuned")], 100)


def test_what_is_no_evaluation_is_refused(one: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no method 'kv': it has adapter, tuned"):
        read_run("a", one, "kv")
    for name in FILES:
        path = one / name
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=name):
            read_run("a", one, "tuned")
        path.unlink()
        with pytest.raises(InputError, match=f"has no {name}"):
            read_run("a", one, "tuned")
        path.write_bytes(whole)


def test_the_page_stands_alone_with_the_reference_first(one: Path, other: Path, tmp_path: Path) -> None:
    runs = [read_run("before & after", one, "tuned"), read_run("now", other, "tuned")]
    found = compare(runs, 100)
    write_page(runs, found, tmp_path / "compare.html")
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert page.count("<img ") == page.count('src="data:image/') == 2 * 2 * 3  # people, prompts, columns
    assert "http" not in page and "before &amp; after" in page and "no difference" in page
    line = page[page.index("<tr><th>photo, snow") :].split("</tr>")[0]
    assert [part.split('"')[0] for part in line.split('alt="')[1:]] == [
        "reference photo of 000",
        "before &amp; after: photo, snow",
        "now: photo, snow",
    ]
    assert table(found).count("\n") == len(found)


def invoke(*words: object) -> Any:
    return CliRunner().invoke(cli.app, ["compare", *map(str, words)])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The committed parameters in a folder of the test's own, and the current one."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path


def test_the_command_compares_folders_and_methods(one: Path, other: Path, here: Path) -> None:
    done = invoke(one, other, "--label", "a", "--label", "b")
    assert done.exit_code == 0, done.exception
    assert "higher" in done.output and (here / "compare.html").is_file()
    same = invoke(one, one, "--method", "tuned", "--out", "same.html")
    assert "higher" not in same.output and (here / "same.html").is_file()


def test_the_command_reads_runs_of_mlflow(one: Path, other: Path, here: Path) -> None:
    """The recorder keeps what a comparison needs."""
    run = open_recorder(read_params(), Origin("evaluate", "tiny", {}, (), "key")).finish(other)["run"]
    done = invoke(one, run)
    assert done.exit_code == 0, done.exception
    assert run in done.output and "higher" in done.output
    failed = invoke(one, "f" * 32)
    assert isinstance(failed.exception, InputError) and "name a run of the stage `evaluate`" in str(failed.exception)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs two runs or more"),
        (["again", "--label", "a"], "2 runs have 1 labels"),
        (["again", "again", "--method", "tuned", "--method", "adapter"], "3 runs have 2 times --method"),
    ],
)
def test_the_command_refuses_what_does_not_fit(words: list[str], said: str, one: Path, here: Path) -> None:
    done = invoke(one, *(one if word == "again" else word for word in words))
    assert isinstance(done.exception, InputError) and said in str(done.exception)
    assert not (here / "compare.html").exists()
