"""Files that people write: YAML, checked as a whole, every fault named at once."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from lookahead.config.fields import faults
from lookahead.errors import InputError

Model = TypeVar("Model", bound=BaseModel)


def read_yaml(path: str | Path, kind: type[Model], what: str, named_by: str) -> Model:
    """Read and check a YAML file.

    Args:
        path: of the file.
        kind: what it holds.
        what: how messages call it.
        named_by: the parameter that names the file.

    Raises:
        InputError: the file is missing, is not YAML, or a key is unknown, missing or wrong; each is named.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read ({error.strerror}): check `{named_by}`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{what} {path} is not valid YAML: {error}") from None
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{what} {path} is not valid:\n" + faults(error, "file")) from None
