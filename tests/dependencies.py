"""Mends every `dvc.yaml`: each stage's dependencies on the package are the modules that its script imports.

.venv/bin/python -m tests.dependencies
"""

from pathlib import Path

from tests.modules import PACKAGE, ROOT, closure

CHAIN = ("generate", "photos", "features", "train", "evaluate")
PIPELINES = {  # stage: its script
    "dvc.yaml": {name: name for name in CHAIN},
    "studies/ablation/dvc.yaml": {"cell": "ablation", "table": "ablation_table"},
    "studies/curves/dvc.yaml": {"base": "curves", "untuned": "curves", "tuned": "curves", "table": "curves_table"},
    "studies/search/dvc.yaml": {"search": "search"},
}


def exempt(path: Path) -> bool:
    """Parameters are tracked as parameters, tracking changes no output, and packages only hand names on."""
    folders = (PACKAGE / "config", PACKAGE / "tracking")
    return any(folder in path.parents for folder in folders) or path.name == "__init__.py"


def modules_behind(script: Path) -> list[str]:
    """The files that decide what a stage does, relative to the repository."""
    return sorted(path.relative_to(ROOT).as_posix() for path in closure(script) if not exempt(path))


def mend(text: str, scripts: dict[str, str]) -> str:
    """A `dvc.yaml` with the lines `- src/lookahead/...` of these stages put right."""
    mended: list[str] = []
    stage = ""
    for line in text.splitlines():
        if line.startswith("  ") and not line.startswith("   ") and line.endswith(":"):
            stage = line.strip(" :")
        if stage in scripts and line.strip().startswith("- src/lookahead/"):
            continue
        mended.append(line)
        if stage in scripts and line.strip() == "deps:":
            mended += [f"      - {path}" for path in modules_behind(ROOT / "stages" / f"{scripts[stage]}.py")]
    return "\n".join(mended) + "\n"


if __name__ == "__main__":
    for name, scripts in PIPELINES.items():
        path = ROOT / name
        path.write_text(mend(path.read_text(encoding="utf-8"), scripts), encoding="utf-8")
