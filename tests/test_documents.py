"""What the documents point at exists."""

import ast
import importlib
import re

import pytest

from tests.modules import ROOT

ROW = re.compile(r"^\| .* \| `(method\.[\w.]+)` \| `([\w/]+\.py)::(\w+)` \|$", re.MULTILINE)
ENTRIES = ROW.findall((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))


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
