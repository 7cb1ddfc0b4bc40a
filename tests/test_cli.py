"""The command: one command a stage, a readable headline, and one message for bad input."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lookahead import cli


def run_main(monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """What the command writes to stderr when it ends with an error."""
    monkeypatch.setattr(sys, "argv", ["lookahead", *words])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code not in (0, None)
    return str(caught.value.code)


@pytest.mark.parametrize(("words", "shown"), [(["--help"], "personalize"), (["train", "--help"], "--variant")])
def test_help_needs_no_heavy_library(words: list[str], shown: str) -> None:
    code = (
        "import sys; from lookahead.cli import app\n"
        f"try: app({words})\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'diffusers', 'mlflow', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


def test_the_headline_shows_the_evaluations_table_and_where_more_is(here: Path) -> None:
    folder = here / "runs" / "sdxl" / "evaluate"
    folder.mkdir(parents=True)
    (folder / "headline.md").write_text("| untuned | 0.300 |")
    shown = CliRunner().invoke(cli.app, ["headline", "--world", "sdxl"]).output
    assert all(text in shown for text in ("| untuned | 0.300 |", "runs/sdxl/evaluate/report.html", "make ui"))


def test_without_results_the_headline_says_what_to_run(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run_main(monkeypatch, "headline")
    assert said.startswith("error: ") and "evaluate holds no result" in said and "make repro" in said


def test_a_stage_gets_its_options(here: Path) -> None:
    (here / "stages").mkdir()
    (here / "stages" / "train.py").write_text("import sys, json; open('seen', 'w').write(json.dumps(sys.argv))")
    CliRunner().invoke(cli.app, ["train", "--world", "sdxl", "--variant", "noise_only"])
    assert (here / "seen").read_text() == '["stages/train.py", "--world", "sdxl", "--variant", "noise_only"]'


@pytest.mark.parametrize("command", ["doctor", "headline"])
def test_a_misspelt_parameter_is_one_message(here: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    (here / "params.yaml").write_text((here / "params.yaml").read_text().replace("image_dropout:", "imagedrop:"))
    assert "imagedrop" in run_main(monkeypatch, command)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate"], "run from the repository's root"),
        (["personalize", "--out", "mine"], "not empty"),
        (["personalize", "--out", "new", "--world", "mars"], "no world 'mars'"),
        (["personalize", "--out", "new", "--encoder", "mine"], "holds no encoder"),
        (["fetch", "list.csv"], "Give a folder: lookahead fetch list.csv FOLDER"),
        (["adopt", "--world", "sdxl"], "make search"),
        (["dashboard"], "run `make search` first"),
        (["ui"], "set tracking.enabled to true"),
    ],
)
def test_what_cannot_be_done_is_one_message(
    here: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "holiday.jpg").touch()
    (here / "params.yaml").write_text((here / "params.yaml").read_text().replace("enabled: true", "enabled: false"))
    given = ["me.jpg", "--prompt", "a photo of a person"] if words[0] == "personalize" else []
    assert said in run_main(monkeypatch, *words, *given)
