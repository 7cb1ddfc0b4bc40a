"""The directions in which modules import each other (ARCHITECTURE.md): folders follow invalidation."""

import ast
import sys

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
    "pipeline": {"method", "models", "dataset.prompts", "sampling", "world", "config", "portraits", *BASE},
    "demo": {"pipeline", "evaluation", "dataset.prompts", "world", "config", "portraits", *BASE},
    "serving": {"pipeline", "mlflow_pages", "portraits", *BASE},
    "mlflow_pages": {"config", *BASE},
    "tracking": {"mlflow_pages", "config", *BASE},
}
COMPOSERS = {"stage", "plan", "cli", "doctor"}  # like the scripts in stages/, they may import everything
IMPORTS = {name_of(path): top_level(path) for path in files()}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


@pytest.mark.parametrize("part", sorted({part_of(module) for module in IMPORTS} - COMPOSERS - {""}))
def test_a_folder_imports_only_what_lies_below_it(part: str) -> None:
    assert part in ALLOWED, f"where does {part} lie? Name it in ARCHITECTURE.md and here"
    allowed = [f"lookahead.{name}" for name in (part, *ALLOWED[part])]
    for module, names in IMPORTS.items():
        ours = {name for name in names if part_of(module) == part and name.startswith("lookahead.")}
        assert not {name for name in ours if not any(within(name, package) for package in allowed)}, module


def test_the_method_imports_torch_only() -> None:
    roots = {name.split(".")[0] for module, names in IMPORTS.items() if part_of(module) == "method" for name in names}
    assert roots <= {"torch", "lookahead"} | sys.stdlib_module_names


@pytest.mark.parametrize(
    ("package", "parts"),
    [
        ("mlflow", {"tracking", "mlflow_pages", "serving"}),
        ("lookahead.tracking", {"tracking", "search", *COMPOSERS}),
        ("miniature", set()),
    ],
)
def test_mlflow_tracking_and_the_factory_are_imported_by_few(package: str, parts: set[str]) -> None:
    importers = {part_of(module) for module, names in IMPORTS.items() if any(within(name, package) for name in names)}
    assert importers <= parts


def test_the_command_starts_without_heavy_libraries() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (PACKAGE / "cli").glob("*.py")]
    heads = [node for tree in trees for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {(getattr(node, "module", None) or node.names[0].name).split(".")[0] for node in heads}
    assert "typer" in names and not names & {"torch", "diffusers", "transformers", "mlflow", "open_clip"}


def test_no_code_asks_which_world_it_is_in() -> None:
    for path in [*files(), *(ROOT / "stages").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                values = {leaf.value for leaf in ast.walk(node) if isinstance(leaf, ast.Constant)}
                assert not values & {"sdxl", "miniature"}, f"{path}:{node.lineno}"
