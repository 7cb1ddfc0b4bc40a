"""Adopting a setting: `best.yaml`, changes of `params.yaml` by dotted names, applied with the comments kept."""

from __future__ import annotations

import io
from difflib import unified_diff
from pathlib import Path

from ruamel.yaml import YAML

from lookahead.config import parse_params, read_tree


def _yaml() -> YAML:
    form = YAML()
    form.preserve_quotes = True
    form.width = 4096  # lines are broken where people broke them
    null = ("tag:yaml.org,2002:null", "null")
    form.representer.add_representer(type(None), lambda writer, _: writer.represent_scalar(*null))
    return form


def patched(params: Path, patch: Path) -> tuple[str, str]:
    """The text of `params.yaml` and the text with the patch applied, equal where it changes nothing."""
    changes = read_tree(patch, "the patch", "run `make search`, or go to the repository's root")
    before = params.read_text(encoding="utf-8")
    if not changes:
        return before, before
    form, buffer = _yaml(), io.StringIO()
    tree = form.load(before)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        node = tree
        for name in parents:  # a world need not state what it inherits
            node = node.setdefault(name, {})
        node[last] = value
    form.dump(tree, buffer)
    parse_params(YAML(typ="safe", pure=True).load(buffer.getvalue()))  # refuses unknown names and wrong values
    return before, buffer.getvalue()


def difference(before: str, after: str) -> str:
    """What changes, as a unified diff without context; empty where nothing does."""
    lines = unified_diff(before.splitlines(), after.splitlines(), "params.yaml", "adopted", n=0, lineterm="")
    return "\n".join(lines)
