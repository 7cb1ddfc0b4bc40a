"""What the sections of `params.yaml` are made of."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Timestep = Annotated[int, Field(ge=0, lt=1000)]
Split = Literal["search", "validation", "test"]


class Section(BaseModel):
    """A frozen section of the parameters; unknown keys are errors, and nothing has a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def faults(error: ValidationError, whole: str) -> str:
    """One line a fault: where it is (`whole`, if it is of the whole file), what is wrong, and the value."""
    return "\n".join(
        f"  {'.'.join(map(str, e['loc'])) or whole}: {e['msg']} (got {e['input']!r:.80})" for e in error.errors()
    )
