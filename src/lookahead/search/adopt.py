"""Adopting a setting: `best.yaml`, changes of `params.yaml` by dotted names, applied with the comments kept."""

from __future__ import annotations

import io
import tempfile
from difflib import unified_diff
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lookahead.config import read_params
from lookahead.errors import InputError


def _yaml() -> YAML:
    form = YAML()
    form.preserve_quotes = True
    form.width = 4096  # lines are broken where people broke them
    null = ("tag:yaml.org,2002:null", "null")
    form.representer.add_representer(type(None), lambda writer, _: writer.represent_scalar(*null))
    return form


def _load(path: Path) -> Any:
    try:
        return _yaml().load(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"{path} does not exist: run `make search`, or go to the repository's root") from None
    except YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None


def patched(params: Path, patch: Path) -> tuple[str, str]:
    """The text of `params.yaml` and the text with the patch applied, equal where it changes nothing."""
    tree, changes = _load(params), _load(patch)
    before = params.read_text(encoding="utf-8")
    if not changes:
        return before, before
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        node = tree
        for name in parents:  # a world need not state what it inherits
            node = node.setdefault(name, {})
        node[last] = value
    buffer = io.StringIO()
    _yaml().dump(tree, buffer)
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(buffer.getvalue())
        file.flush()
        read_params(Path(file.name))  # refuses unknown names and wrong values
    return before, buffer.getvalue()


def difference(before: str, after: str) -> str:
    """What changes, as a unified diff without context; empty where nothing does."""
    lines = unified_diff(before.splitlines(), after.splitlines(), "params.yaml", "adopted", n=0, lineterm="")
    return "\n".join(lines)
