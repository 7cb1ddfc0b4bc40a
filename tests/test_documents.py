"""What the documents name exists: paths, commands and links of docs/, functions and tests of equations."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from typer.main import get_command

from lookahead.cli import app
from tests.modules import ROOT

ROW = re.compile(r"^\| .* \| `(method\.[\w.]+)` \| `([\w/]+\.py)::(\w+)` \|$", re.MULTILINE)
ENTRIES = ROW.findall((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
PAGES = sorted((ROOT / "docs").glob("*.md"))
WRITTEN = ("runs/", "results/", "out/")  # by commands


def spans(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_path_exists(page: Path) -> None:
    paths = [span for span in spans(page) if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?|[\w-]+\.(md|yaml)", span)]
    missing = [path for path in paths if not path.startswith(WRITTEN) and not (ROOT / path).exists()]
    assert not missing
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert all((page.parent / link).exists() for link in links)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_and_its_options_exist(page: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for name, words in re.findall(r"(?:`|bin/)lookahead (\w+)([^`\n#]*)", text):
        known = {option for parameter in commands[name].params for option in parameter.opts + parameter.secondary_opts}
        assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", words)) <= known | {"--help"}, name


def test_the_table_of_equations_has_every_function_of_the_paper() -> None:
    assert len(ENTRIES) == (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").count("| `method.")
    named = {function.split(".")[1] for function, _, _ in ENTRIES}
    assert named == {path.stem for path in (ROOT / "src/lookahead/method").glob("*.py")} - {"__init__"}


@pytest.mark.parametrize(("function", "file", "test"), ENTRIES, ids=[f for f, _, _ in ENTRIES])
def test_an_equation_has_its_function_and_its_test(function: str, file: str, test: str) -> None:
    module, name = function.rsplit(".", 1)
    assert callable(getattr(importlib.import_module(f"lookahead.{module}"), name))
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
