"""Where an output comes from: commit, parameters, inputs, and what DVC knows of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from lookahead.artifacts import digest, digest_paths, files_below, read_json
from lookahead.config import Params

_ODD = re.compile(r"[^\w .:/-]", re.ASCII)  # what MLflow takes in no metric's name
_STEP = re.compile(r"[_-]?(\d+)$")


@dataclass(frozen=True)
class Origin:
    """A run of a stage: its world, its sections of the parameters, the paths it reads, its workspace's key."""

    stage: str
    world: str
    settings: Mapping[str, object]
    inputs: tuple[Path, ...]
    key: str


def git(*arguments: str) -> str:
    """What git answers; nothing outside a repository or before the first commit."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def reproduction(params: Params) -> str:
    """What the stages of one reproduction have in common: the commit and the parameters, tracking aside."""
    return digest(git("rev-parse", "HEAD"), params.model_dump(mode="json", exclude={"tracking"}))[:16]


def tags_of(origin: Origin) -> dict[str, str]:
    """The run's tags from git and DVC; names that begin with "mlflow." are those its UI shows."""
    tags = {
        "mlflow.source.name": f"stages/{origin.stage.split('/')[0]}.py",
        "mlflow.source.git.commit": git("rev-parse", "HEAD"),
        "mlflow.source.git.branch": git("rev-parse", "--abbrev-ref", "HEAD"),
        "git.dirty": str(bool(git("status", "--porcelain", "--untracked-files=no"))).lower(),
        "dvc.stage": os.environ.get("DVC_STAGE", ""),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", ""),
        "lookahead.world": origin.world,
        "lookahead.stage": origin.stage,
        "lookahead.key": origin.key,
    }
    return {name: value for name, value in tags.items() if value}


def dvc_digests(lock: Path) -> dict[str, str]:
    """MD5 by path of what DVC's lock file knows."""
    stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {}) if lock.is_file() else {}
    entries = (entry for stage in stages.values() for kind in ("deps", "outs") for entry in stage.get(kind, []))
    return {entry["path"]: entry["md5"] for entry in entries if "md5" in entry}


def input_digests(origin: Origin) -> dict[str, str]:
    """The inputs' digests by path, at most 36 characters: DVC's MD5 where it knows the path, else of the contents."""
    known = dvc_digests(Path("dvc.lock"))
    return {str(path): known.get(path.as_posix()) or digest_paths([path])[:32] for path in origin.inputs}


def dvc_md5(folder: Path) -> str:
    """The digest that DVC will give a folder: of the list of its files' MD5 and names."""
    files = sorted((path.relative_to(folder).as_posix(), path) for path in files_below(folder))
    entries = []
    for name, path in files:
        with path.open("rb") as file:
            entries.append({"md5": hashlib.file_digest(file, "md5").hexdigest(), "relpath": name})
    return f"{hashlib.md5(json.dumps(entries, sort_keys=True).encode()).hexdigest()}.dir"


def flatten(tree: object, prefix: str = "") -> dict[str, object]:
    """The leaves of nested mappings by dotted name; an entry `a.b` after a mapping `a` replaces the leaf `b` in it."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    pairs = ((f"{prefix}.{name}" if prefix else str(name), value) for name, value in tree.items())
    return {key: leaf for name, value in pairs for key, leaf in flatten(value, name).items()}


def numbers_of(out: Path) -> dict[str, float]:
    """The numbers of an output's `metrics.json` by dotted name."""
    path = out / "metrics.json"
    leaves = flatten(read_json(path) if path.is_file() else {}).items()
    return {_ODD.sub("", name): float(value) for name, value in leaves if isinstance(value, int | float)}


def pictures_of(out: Path) -> Iterator[tuple[Path, str, int]]:
    """The output's PNG files, each with the key and the step (0 without one) that the UI shows it by."""
    for path in sorted(out.rglob("*.png")):
        number = _STEP.search(path.stem)
        name = path.relative_to(out).with_suffix("").as_posix()
        yield path, _STEP.sub("", name), int(number[1]) if number else 0
