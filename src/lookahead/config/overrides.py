"""Dotted overrides of parameters, and a world's differences from the defaults: one function each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lookahead.config.fields import faults
from lookahead.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


def with_overrides(section: Model, overrides: Mapping[str, object]) -> Model:
    """A section with other values at dotted paths, such as "lookahead.weight", checked again."""
    name, tree = type(section).__name__.lower(), section.model_dump()
    for path, value in overrides.items():
        *parents, last = path.split(".")
        node: Any = tree
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node:
            raise InputError(f"{name}.{path} is no parameter: check its spelling against params.yaml")
        node[last] = value
    try:
        return type(section).model_validate(tree)
    except ValidationError as error:
        raise InputError(f"an override of {name} is not valid:\n" + faults(error, name)) from None


def merged(defaults: Mapping[str, Any], world: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults with a world's own values: mappings are merged key by key, anything else is replaced."""
    tree = dict(defaults)
    for key, value in world.items():
        known = tree.get(key)
        tree[key] = merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return tree
