"""Adopting a setting: `best.yaml`, a patch of `params.yaml`, applied with the comments kept."""

from __future__ import annotations

import difflib
import io
import tempfile
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lookahead.artifacts import atomic
from lookahead.config import read_params
from lookahead.errors import InputError


def _yaml() -> YAML:
    form = YAML()
    form.preserve_quotes = True
    form.width = 4096  # lines are broken where people broke them
    form.representer.add_representer(
        type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return form


def _load(path: Path) -> Any:
    try:
        return _yaml().load(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{path} does not exist: run `make search`, or go to the repository's root") from None
    except YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None


def patched(params: Path, patch: Path) -> tuple[str, str]:
    """The text of `params.yaml` and the text with the patch applied, equal where there is nothing to change.

    Raises:
        InputError: a file is missing or no YAML, the patch names an unknown parameter, or the result is not valid.
    """
    tree, changes = _load(params), _load(patch)
    before = params.read_text(encoding="utf-8")
    if not changes:
        return before, before
    _merge(tree, changes)
    buffer = io.StringIO()
    _yaml().dump(tree, buffer)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(buffer.getvalue())
        file.flush()
        read_params(Path(file.name))
    return before, buffer.getvalue()


def _merge(tree: MutableMapping[str, Any], changes: MutableMapping[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, MutableMapping):
            _merge(tree.setdefault(name, {}), value)
        else:
            tree[name] = value


def difference(before: str, after: str) -> str:
    """What changes, as a unified diff without context; empty where nothing does."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "params.yaml", "adopted", n=0, lineterm="")
    return "\n".join(lines)


def adopt(params: Path, text: str) -> None:
    """Replace `params.yaml`, whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    with atomic(params) as temporary:
        temporary.write_text(text, encoding="utf-8")
