"""A search: the space as data, how trials are scored, how the preferred settings are confirmed."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lookahead.config.fields import Count, Fraction, Section, Seed

Value = bool | int | float | str


class FloatRange(Section):
    """A real parameter below `train`, drawn evenly or, with `log`, evenly in its logarithm."""

    path: str
    kind: Literal["float"]
    low: float
    high: float
    log: bool
    when: dict[str, list[Value]]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        _check_ends(self)
        return self


class IntRange(Section):
    """A whole-numbered parameter below `train`, both ends included."""

    path: str
    kind: Literal["int"]
    low: int
    high: int
    log: bool
    when: dict[str, list[Value]]

    @model_validator(mode="after")
    def _sound(self) -> Self:
        _check_ends(self)
        return self


class Choices(Section):
    """A parameter below `train` that takes one of some values."""

    path: str
    kind: Literal["categorical"]
    choices: Annotated[list[Value], Field(min_length=2)]
    when: dict[str, list[Value]]


Range = Annotated[FloatRange | IntRange | Choices, Field(discriminator="kind")]


def _check_ends(one: FloatRange | IntRange) -> None:
    if one.low >= one.high:
        raise ValueError(f"the range of {one.path} goes from {one.low} to {one.high}: low has to be below high")
    if one.log and one.low <= 0:
        raise ValueError(f"the range of {one.path} is logarithmic and begins at {one.low}: begin above 0")


class Checks(Section):
    """Evaluations on the way of a trial: every so many steps, on so many people; the median prunes by them."""

    every: Count
    people: Annotated[int, Field(ge=2)]


class Confirm(Section):
    """How many settings of the front are trained at full length, with which fresh seeds, and scored on whom."""

    settings: Annotated[int, Field(ge=1, le=3)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    split: Literal["search", "validation"]
    people: Annotated[int, Field(ge=2)]


class Heartbeat(Section):
    """Seconds between a worker's signs of life, seconds without one after which its trial is run again, how often."""

    interval: Count
    grace: Count
    retries: Count


class Search(Section):
    """One study of one world.

    `pareto` looks for the front of identity and prompt alignment, `constrained` for the best identity whose prompt
    alignment is at most `prompt_loss` below the untuned adapter's. `split` is the one of the
    protocol's whose first `people` are drawn: never `test`. In `space`, `when` names other entries and the values of
    theirs with which a parameter is drawn; without them it keeps its value of `params.yaml`. The study ends with
    `trials` complete or pruned ones, or as many failed ones. `workers` processes of this machine share the trials.
    """

    mode: Literal["pareto", "constrained"]
    trials: Count
    workers: Count
    startup: Count
    seed: Seed
    steps: Count
    split: Literal["search", "validation"]
    people: Annotated[int, Field(ge=2)]
    photo_prompts: Count
    num_inference_steps: Count
    prompt_loss: Fraction
    checks: Checks
    confirm: Confirm
    heartbeat: Heartbeat
    contours: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    space: Annotated[dict[str, Range], Field(min_length=1)]

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        earlier: list[str] = []
        for name, one in self.space.items():
            for other, values in one.when.items():
                if other not in earlier:
                    raise ValueError(f"{name!r} is drawn when {other!r} is {values}: name an entry above it, {earlier}")
            earlier.append(name)
        for name in (name for pair in self.contours for name in pair):
            if name not in self.space:
                raise ValueError(f"contours name {name!r}, which is not in the space: {earlier}")
        if self.seed in self.confirm.seeds:
            raise ValueError(f"confirm.seeds holds {self.seed}, the trials' own seed: confirm with fresh ones")
        return self
