"""Which modules of the package a file imports, read from its source: nothing is executed."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PACKAGE = SOURCE / "lookahead"


def files() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def locate(module: str) -> Path | None:
    """The file of a dotted name, a package's being its `__init__.py`; None when there is no such module."""
    stem = SOURCE.joinpath(*module.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.exists()), None)


def name_of(path: Path) -> str:
    """The dotted name of a module of the package."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def top_level(path: Path) -> set[str]:
    """The dotted names that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@cache
def imported(path: Path) -> frozenset[Path]:
    """The package's files that a file imports directly, with the `__init__.py` of every package on the way."""
    found: set[Path] = set()
    for name in top_level(path):
        parts = name.split(".")
        if parts[0] == "lookahead":
            found |= {path for i in range(len(parts)) if (path := locate(".".join(parts[: i + 1])))}
    return frozenset(found)


def closure(path: Path) -> set[Path]:
    """The package's files that a file imports, directly or through others; the plan decides no output."""
    seen: set[Path] = set()
    waiting = [path]
    while waiting:
        new = imported(waiting.pop()) - seen - {PACKAGE / "plan.py"}
        seen |= new
        waiting += new
    return seen
