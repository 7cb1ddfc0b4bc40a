"""Comparisons of evaluations: contrasts with the first, what is refused, the page and the command."""

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from typer.testing import CliRunner

from lookahead import cli
from lookahead.artifacts import write_json
from lookahead.config import read_params
from lookahead.errors import InputError
from lookahead.evaluation.evaluator import save_table
from lookahead.report.comparison import FILES, compare, read_run, write_comparison
from lookahead.report.pages import make_album
from lookahead.tracking import Origin, open_recorder
from tests.report.frames import draw, long_table, portraits, protocol


def build(folder: Path, shift: float, **changes: Any) -> Path:
    """What an evaluation leaves: the cells `adapter` and `tuned`, whose identity is higher by `shift` in oil."""
    table = long_table({"adapter": 0.0, "tuned": 0.0})
    album = make_album(table, portraits(folder / "portraits"), draw(table, folder / "pictures"), 2)
    table["identity"] += shift * ((table["cell"] == "tuned") & (table["style"] == "oil"))
    save_table(table.sample(frac=1, random_state=1), folder / "per_image.parquet")
    write_json(folder / "protocol.json", protocol(**changes))
    save_table(album, folder / "album.parquet")
    return folder


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return build(tmp_path / "one", 0.0)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return build(tmp_path / "other", 0.2)


def contrasts(*runs: tuple[str, Path, str]) -> dict[str, list[str]]:
    """By run: identity, prompt alignment and faces found, as text."""
    _, table = compare([read_run(*run) for run in runs])
    assert set(table.pop("sample")) == {"4 people, this training"}
    return dict(zip(table.index, table.to_numpy().tolist(), strict=True))


def test_differences_are_those_by_hand(one: Path, other: Path) -> None:
    found = contrasts(("a", one, "tuned"), ("b", other, "tuned"))
    same = "+0.000 [+0.000 to +0.000], not significant"
    assert found == {"b against a": ["+0.050 [+0.050 to +0.050], higher", same, same]}
    table = pd.read_parquet(other / "per_image.parquet").assign(training_seed=7)  # which may be another
    save_table(table, other / "per_image.parquet")
    found = contrasts(("b", other, "tuned"), ("a", one, "tuned"), ("c", one, "adapter"))
    assert list(found) == ["a against b", "c against b"] and found["a against b"][0].endswith("lower")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": {"num_inference_steps": 9, "seed": 1}}, r"differ in settings\.num_inference_steps:"),
        ({"people": [], "judges": {"scorer": ["b", None]}}, r"judges\.scorer, people:"),
    ],
)
def test_another_protocol_is_refused_and_its_keys_are_named(
    change: dict[str, Any], said: str, one: Path, tmp_path: Path
) -> None:
    strange = build(tmp_path / "strange", 0.0, **change)
    with pytest.raises(InputError, match=said):
        compare([read_run("a", one, "tuned"), read_run("b", strange, "tuned")])


def test_what_is_no_evaluation_is_refused(one: Path) -> None:
    with pytest.raises(InputError, match="has no method 'kv': it has adapter, tuned"):
        read_run("a", one, "kv")
    with pytest.raises(InputError, match="two runs are called a"):
        compare([read_run("a", one, "tuned"), read_run("a", one, "adapter")])
    table = pd.read_parquet(one / "per_image.parquet").rename(columns={"cell": "method"})
    for name in FILES:
        whole = (one / name).read_bytes()
        (one / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=name):
            read_run("a", one, "tuned")
        (one / name).unlink()
        with pytest.raises(InputError, match=f"has no {name}"):
            read_run("a", one, "tuned")
        (one / name).write_bytes(whole)
    save_table(table, one / "per_image.parquet")
    with pytest.raises(InputError, match="cannot be read"):
        read_run("a", one, "tuned")


def test_the_page_stands_alone_with_the_reference_first(one: Path, other: Path, tmp_path: Path) -> None:
    runs = [read_run("before & after", one, "tuned"), read_run("now", other, "tuned")]
    text = write_comparison(runs, tmp_path / "compare.html")
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert page.count("<img ") == page.count('src="data:image/') == 2 * (1 + 2 * 4)  # people, runs, prompts
    assert "http" not in page and "before &amp; after" in page and "not significant" in page
    alts = re.findall('alt="(.*?)"', page)[:5]
    assert alts[:2] == ["reference photo of 000", "before &amp; after: a photo, snow"] and "pencil" in alts[4]
    assert text.count("\n") == 2 + 1 and "4 people, this training" in text


def invoke(*words: object) -> Any:
    return CliRunner().invoke(cli.app, ["compare", *map(str, words)])


def test_the_command_compares_folders_and_runs_of_mlflow(one: Path, other: Path, here: Path) -> None:
    """The recorder keeps what a comparison needs."""
    done = invoke(one, other, "--label", "a", "--label", "b", "--out", "folders.html")
    assert done.exit_code == 0, done.exception
    assert "higher" in done.output and (here / "folders.html").is_file()
    run = open_recorder(read_params(), Origin("evaluate", "miniature", {}, (), "key")).finish(other)["run"]
    done = invoke(one, run)
    assert done.exit_code == 0, done.exception
    assert run in done.output and "higher" in done.output and (here / "compare.html").is_file()
    failed = invoke(one, "f" * 32)
    assert isinstance(failed.exception, InputError) and "name a run of the stage `evaluate`" in str(failed.exception)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "needs two runs or more"),
        (["again", "--label", "a"], "2 runs have 1 times --label"),
    ],
)
def test_the_command_refuses_what_does_not_fit(words: list[str], said: str, one: Path, here: Path) -> None:
    done = invoke(one, *(one if word == "again" else word for word in words))
    assert isinstance(done.exception, InputError) and said in str(done.exception)
    assert not (here / "compare.html").exists()
