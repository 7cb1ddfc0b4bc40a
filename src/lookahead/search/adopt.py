"""Adopting a setting: `best.yaml`, a patch of `params.yaml`, applied with the comments kept."""

from __future__ import annotations

import difflib
import io
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter

from lookahead.artifacts import atomic
from lookahead.config import parse_params
from lookahead.errors import InputError


class _Representer(RoundTripRepresenter):
    """Writes nothing as `null`, the way `params.yaml` does."""

    def represent_none(self, data: Any) -> ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_Representer.add_representer(type(None), _Representer.represent_none)


def _yaml() -> YAML:
    form = YAML()
    form.Representer = _Representer
    form.preserve_quotes = True
    form.width = 4096  # lines are broken where people broke them
    return form


def _load(text: str, path: Path) -> Any:
    try:
        return _yaml().load(text)
    except YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        raise InputError(f"{path} does not exist: run `make search`, or go to the repository's root") from None


def patched(params: Path, patch: Path) -> tuple[str, str]:
    """The text of `params.yaml` and the text with the patch applied, equal where there is nothing to change.

    Raises:
        InputError: a file is missing or no YAML, the patch names an unknown parameter, or the result is not valid.
    """
    before = _read(params)
    changes = _load(_read(patch), patch) or {}
    if not changes:
        return before, before
    tree = _load(before, params)
    _merge(tree, changes, "", patch)
    buffer = io.StringIO()
    _yaml().dump(tree, buffer)
    parse_params(yaml.safe_load(buffer.getvalue()))  # as it will be read
    return before, buffer.getvalue()


def _merge(tree: MutableMapping[str, Any], changes: MutableMapping[str, Any], at: str, patch: Path) -> None:
    for name, value in changes.items():
        if name not in tree:
            raise InputError(f"{patch} sets {at}{name}, which params.yaml does not have: search again")
        if isinstance(value, MutableMapping):
            _merge(tree[name], value, f"{at}{name}.", patch)
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
