"""What decides a study's numbers: digests of the space, the fixed parameters, the data and the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lookahead
from lookahead.artifacts import digest, digest_paths, files_below
from lookahead.config import Evaluate, Search, World

# Parts of the package, and modules of the search, that can change a trial's numbers; pages and tables cannot.
_CODE = ("errors.py", "artifacts.py", "method", "models", "data", "sampling", "training", "evaluation", "world")
_SEARCH = ("space.py", "judge.py", "trial.py", "objectives.py")
# Raising these continues a study.
_OPEN = {"trials", "workers", "launch", "confirm", "heartbeat", "contours", "startup", "space"}


def inputs_of(world: World, settings: Evaluate, search: Search, features: Path) -> dict[str, str]:
    """Digests by name: equal ones mean that earlier trials count.

    Raises:
        InputError: the features, a checkpoint or the portraits are missing.
    """
    tree = world.model_dump(mode="json", exclude={"train": {"steps", "seed"}, "evaluate": True})
    tree["evaluate"] = settings.model_dump(mode="json", exclude={"steering"})  # which no trial is drawn with
    space = {name: one.model_dump(mode="json") for name, one in search.space.items()}
    return {
        "space": digest(space),
        "settings": digest(tree, search.model_dump(mode="json", exclude=_OPEN)),
        "data": digest(
            _features(features), digest_paths(sorted(set(_local(tree["checkpoints"])))), _people(settings, search)
        ),
        "code": digest_paths(_code()),
    }


def _features(folder: Path) -> list[object]:
    """The table's contents, and names and sizes of the rest: a large dataset is not read for its name."""
    sizes = [(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files_below(folder)]
    return [digest_paths([folder / "table.parquet"]), sizes]


def _people(settings: Evaluate, search: Search) -> str:
    """Those who judge; the people of the test are not looked at."""
    folders = [Path(getattr(settings.splits, split)) for split in (search.split, search.confirm.split)]
    return digest_paths([*folders, Path(settings.prompts)])


def _local(tree: object) -> Iterator[Path]:
    """The files and folders among the checkpoints; hub ids name themselves in the settings."""
    if isinstance(tree, dict):
        for value in tree.values():
            yield from _local(value)
    elif isinstance(tree, str) and tree and Path(tree.removeprefix("local-dir:")).exists():
        yield Path(tree.removeprefix("local-dir:"))


def _code() -> list[Path]:
    package = Path(lookahead.__file__).parent
    paths = [*(package / part for part in _CODE), *(package / "search" / name for name in _SEARCH)]
    return [file for path in paths for file in files_below(path) if file.suffix == ".py"]
