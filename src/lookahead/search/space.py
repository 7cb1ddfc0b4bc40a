"""The space of a search: which parameters a trial draws, what they are called, and whether they are possible."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import optuna
from pydantic import JsonValue

from lookahead.config import Choices, FloatRange, IntRange, Search, Train, with_overrides
from lookahead.errors import InputError

Value = bool | int | float | str
Values = dict[str, Value]  # by name in the space
Entry = FloatRange | IntRange | Choices
Space = Mapping[str, Entry]
CORNERS = 500  # settings at the ends of ranges that are tried: every pair of ends comes many times
# What a trial sets itself: the same for all, so that luck and length are not searched.
FIXED = ("steps", "seed", "checkpoint_every", "checkpoints_total_limit", "sample_every")


def current(settings: Train, path: str) -> Value:
    """The value of a parameter below `train`."""
    node: object = settings.model_dump()
    for name in path.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, bool | int | float | str):
        raise InputError(f"train.{path} is no parameter that can be searched: check the paths of the search's space")
    return node


def active(space: Space, choose: Callable[[str, Entry], Value]) -> Values:
    """The values of those entries whose conditions hold, asked for in the order of the space."""
    values: Values = {}
    for name, one in space.items():
        if all(other in values and values[other] in allowed for other, allowed in one.when.items()):
            values[name] = choose(name, one)
    return values


def suggest(space: Space, trial: optuna.Trial) -> Values:
    """The values that Optuna draws for a trial."""

    def choose(name: str, one: Entry) -> Value:
        if isinstance(one, FloatRange):
            return trial.suggest_float(name, one.low, one.high, log=one.log)
        if isinstance(one, IntRange):
            return trial.suggest_int(name, one.low, one.high, log=one.log)
        return trial.suggest_categorical(name, one.choices)  # type: ignore[return-value]  # no choice is None

    return active(space, choose)


def present(space: Space, settings: Train) -> Values:
    """The values of `params.yaml`: those of trial 0."""
    return active(space, lambda _, one: current(settings, one.path))


def as_overrides(space: Space, values: Mapping[str, Value]) -> dict[str, JsonValue]:
    """The values by parameter path below `train`."""
    changes: dict[str, JsonValue] = {}
    for name, value in values.items():
        if (path := space[name].path) in changes:
            raise InputError(f"{name!r} sets train.{path}, and so does an entry above it: separate them by `when`")
        changes[path] = value
    return changes


def check_space(search: Search, settings: Train) -> None:
    """Refuse a space in which a trial could be impossible, before the first one.

    Ends of ranges are tried together, because some bounds depend on another parameter.
    """
    space, draw = search.space, random.Random(0)
    for name, one in space.items():
        if one.path.split(".")[0] in FIXED:
            raise InputError(f"{name!r} searches train.{one.path}, which every trial sets itself: {', '.join(FIXED)}")
        current(settings, one.path)
    for name, value in present(space, settings).items():
        one = space[name]
        inside = value in one.choices if isinstance(one, Choices) else one.low <= value <= one.high  # type: ignore[operator]
        if not inside:
            raise InputError(f"params.yaml's train.{one.path} is {value}, outside {name!r}: widen it")
    for _ in range(CORNERS):
        corner = active(
            space, lambda _, one: draw.choice(one.choices if isinstance(one, Choices) else [one.low, one.high])
        )
        try:
            with_overrides(settings, as_overrides(space, corner))
        except InputError as error:
            values = ", ".join(f"{name} = {value}" for name, value in corner.items())
            raise InputError(f"the search's space allows {values}: {error}") from None
