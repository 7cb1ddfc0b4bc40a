"""What parameters are made of, how their files are read, and how other values are put over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from lookahead.errors import InputError

Model = TypeVar("Model", bound=BaseModel)
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Several = Annotated[int, Field(ge=2)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Timestep = Annotated[int, Field(ge=0, lt=1000)]


class Section(BaseModel):
    """A frozen section of the parameters; unknown keys are errors, and nothing has a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Steps(Section):
    """A scheduler, in how many steps it draws, and the scale of plain guidance."""

    scheduler: str
    num_inference_steps: Count
    guidance_scale: NotNegative


class Timesteps(Section):
    """A range of timesteps, both ends included."""

    timestep_min: Timestep
    timestep_max: Timestep

    @model_validator(mode="after")
    def _ordered(self) -> Timesteps:
        low, high = self.timestep_min, self.timestep_max
        if low > high:
            raise ValueError(f"timestep_min ({low}) is above timestep_max ({high}): swap them")
        return self


def checked(kind: type[Model], tree: object, what: str, whole: str) -> Model:
    """A tree as `kind`; one line a fault: its path (`whole`, if it is of the whole tree), what is wrong, the value."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        faults = "\n".join(
            f"  {'.'.join(map(str, e['loc'])) or whole}: {e['msg']} (got {e['input']!r:.80})" for e in error.errors()
        )
        raise InputError(f"{what} is not valid:\n{faults}") from None


def read_tree(path: Path, what: str, mend: str) -> Any:
    """The content of a file in YAML 1.2, as DVC writes it: `1e-05` is a number, and a repeated key is a fault."""
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read ({error.strerror}): {mend}") from None
    except (YAMLError, ValueError, TypeError, RecursionError) as error:  # a date such as 2026-02-30 is a ValueError
        problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        reason = problem or str(error).splitlines()[0] or type(error).__name__
        raise InputError(f"{what} {path} is not valid YAML in UTF-8: {where}{reason:.200}; write it again") from None


def read_yaml(path: str | Path, kind: type[Model], what: str, named_by: str) -> Model:
    """Read and check a YAML file, which messages call `what`, and which the parameter `named_by` names."""
    return checked(kind, read_tree(Path(path), what, f"check `{named_by}`"), f"{what} {path}", "file")


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
    return checked(type(section), tree, f"an override of {name}", name)


def merged(defaults: Mapping[str, Any], world: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults with a world's own values: mappings are merged key by key, anything else is replaced."""
    tree = dict(defaults)
    for key, value in world.items():
        known = tree.get(key)
        tree[key] = merged(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return tree
