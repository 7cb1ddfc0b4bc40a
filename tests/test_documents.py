"""What the documents name exists: paths, functions, commands, parameters and links of docs/, tests of equations."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from mlflow.models.cli import serve
from typer.main import get_command

from lookahead.cli import app
from lookahead.config import merged
from tests.modules import ROOT

ROW = re.compile(r"^\| .* \| `(method\.[\w.]+)` \| `([\w/]+\.py)::(\w+)` \|$", re.MULTILINE)
ENTRIES = ROW.findall((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))
PAGES = sorted((ROOT / "docs").glob("*.md"))
MADE = ("runs/", "results/", "out/")  # what commands write


def spans(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_path_exists(page: Path) -> None:
    paths = [span for span in spans(page) if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?|[\w-]+\.(md|yaml)", span)]
    missing = [path for path in paths if not path.startswith(MADE) and not (ROOT / path).exists()]
    assert not missing
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert all((page.parent / link).exists() for link in links)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_and_its_options_exist(page: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for name in re.findall(r"(?:`|bin/)lookahead (\w+)", text):
        assert name in commands, name
    known = {option for command in commands.values() for p in command.params for option in [*p.opts, *p.secondary_opts]}
    completion = {"--help", "--install-completion", "--show-completion", "--no-deps"}
    other = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) - known - completion
    benchmarks = "".join(script.read_text(encoding="utf-8") for script in (ROOT / "benchmarks").glob("*.py"))
    served = {option for parameter in serve.params for option in parameter.opts}
    assert {option for option in other if f'"{option}"' not in benchmarks} <= served | set(
        launch_command_parser()._option_string_actions
    )


def test_a_parameter_exists() -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    world = merged(tree["defaults"], tree["worlds"]["miniature"])
    for page in PAGES:
        for span in spans(page):
            if re.fullmatch(r"(worlds|train|studies|checkpoints)(\.\w+)+", span):
                node = tree if span.split(".")[0] in tree else world
                for part in span.split("."):
                    assert part in node, (page.name, span)
                    node = node[part]


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
