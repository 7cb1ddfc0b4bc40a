"""Files that people write: YAML 1.2, as DVC writes it, checked as a whole, every fault named at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lookahead.config.fields import faults
from lookahead.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


def read_tree(path: Path, what: str, mend: str) -> Any:
    """The content of a YAML file; `1e-05` is a number, and a key that stands twice is a fault."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read ({error.strerror}): {mend}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{what} {path} is not valid YAML: {error}") from None


def read_yaml(path: str | Path, kind: type[Model], what: str, named_by: str) -> Model:
    """Read and check a YAML file.

    Args:
        path: of the file.
        kind: what it holds.
        what: how messages call it.
        named_by: the parameter that names the file.
    """
    tree = read_tree(Path(path), what, f"check `{named_by}`")
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{what} {path} is not valid:\n" + faults(error, "file")) from None
