"""The directions in which modules import each other (ARCHITECTURE.md): folders follow invalidation."""

import ast

import pytest

from tests.modules import PACKAGE, ROOT, files, name_of, top_level

BASE = {"errors", "artifacts"}
ALLOWED = {
    "errors": set(),
    "artifacts": {"errors"},
    "portraits": {"errors"},
    "config": {"errors"},
    "method": set(),
    "world": {"config", *BASE},
    "models": {"method", *BASE},
    "dataset": {"world", "config", "portraits", *BASE},
    "photos": {"dataset", "world", "config", "portraits", *BASE},
    "features": {"dataset", "world", "config", "portraits", *BASE},
    "sampling": {"method", "models", "world", "config", *BASE},
    "training": {"method", "models", "features", "sampling", "world", "config", *BASE},
    "evaluation": {"method", "models", "dataset.prompts", "sampling", "world", "config", "portraits", *BASE},
    "report": {"evaluation", "dataset.prompts", "config", "portraits", *BASE},
    "search": {"training", "evaluation", "report", "tracking", "world", "config", *BASE},
    "pipeline": {"method", "models", "sampling", "world", "config", "portraits", *BASE},
    "demo": {"pipeline", "evaluation", "dataset.prompts", "world", "config", "portraits", *BASE},
    "serving": {"pipeline", "portraits", *BASE},
    "tracking": {"config", *BASE},
}
COMPOSERS = {"stage", "cli", "doctor"}  # like the scripts in stages/, they may import everything


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def ours(module: str) -> bool:
    return module.startswith("lookahead.")


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_place_allows(path) -> None:  # type: ignore[no-untyped-def]
    part = part_of(name_of(path))
    if part in COMPOSERS or not part:
        return
    assert part in ALLOWED, f"{part} has no place in the import direction: name it in ARCHITECTURE.md and here"
    for target in filter(ours, top_level(path)):
        inside = target.removeprefix("lookahead.")
        allowed = any(inside == name or inside.startswith(f"{name}.") for name in {part, *ALLOWED[part]})
        assert allowed, f"{name_of(path)} imports {target}"


@pytest.mark.parametrize("path", [path for path in files() if part_of(name_of(path)) == "method"], ids=lambda p: p.name)
def test_the_method_imports_torch_only(path) -> None:  # type: ignore[no-untyped-def]
    standard = {"__future__", "collections", "contextlib", "dataclasses", "math", "typing", "itertools", "functools"}
    roots = {name.split(".")[0] for name in top_level(path)}
    assert roots <= {"torch", "lookahead"} | standard


def test_only_tracking_and_serving_import_mlflow() -> None:
    importers = {
        part_of(name_of(path)) for path in files() if any(n.split(".")[0] == "mlflow" for n in top_level(path))
    }
    assert importers == {"tracking", "serving"}


def test_only_stages_searches_and_the_command_import_tracking() -> None:
    importers = {part_of(name_of(path)) for path in files() if "lookahead.tracking" in top_level(path)}
    assert importers - {"tracking", "search"} <= COMPOSERS


def test_nothing_imports_the_factory() -> None:
    for path in files():
        assert not any(name.split(".")[0] == "miniature" for name in top_level(path)), path


def test_no_code_asks_which_world_it_is_in() -> None:
    for path in [*files(), *(ROOT / "stages").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                values = {leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)}
                assert not values & {"sdxl", "miniature"}, f"{path}:{node.lineno}"
