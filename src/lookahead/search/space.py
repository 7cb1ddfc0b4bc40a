"""The space of a search: which parameters a trial draws, what they are called, and whether they are possible."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping

import optuna
from pydantic import JsonValue

from lookahead.config import Choices, FloatRange, IntRange, Search, Train, with_overrides
from lookahead.errors import InputError

Value = bool | int | float | str
Values = dict[str, Value]  # by name in the space
Changes = dict[str, JsonValue]  # by path below `train`
Entry = FloatRange | IntRange | Choices
Space = Mapping[str, Entry]
# What a trial sets itself: the same for all, so that luck and length are not searched.
OWN = ("steps", "seed", "checkpoint_every", "checkpoints_total_limit", "sample_every")


def ends(one: Entry) -> list[Value]:
    """The extreme values of a range, or all choices."""
    return list(one.choices) if isinstance(one, Choices) else [one.low, one.high]


def holds(one: Entry, value: object) -> bool:
    """Whether a value lies in the range."""
    if isinstance(one, Choices):
        return any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in one.choices)
    return isinstance(value, int | float) and not isinstance(value, bool) and one.low <= value <= one.high


def current(settings: Train, path: str) -> Value:
    """The value of a parameter below `train`.

    Raises:
        InputError: there is no such parameter, or it is a whole section.
    """
    node: object = settings.model_dump()
    for name in path.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    if node is None or isinstance(node, dict | list):
        raise InputError(f"train.{path} is no parameter that can be searched: check the paths of the search's space")
    assert isinstance(node, bool | int | float | str)
    return node


def drawn(space: Space, choose: Callable[[str, Entry], Value]) -> Values:
    """The values of those entries that are active, asked for in the order of the space."""
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
        value = trial.suggest_categorical(name, one.choices)
        assert value is not None  # no choice is
        return value

    return drawn(space, choose)


def present(space: Space, settings: Train) -> Values:
    """The values of `params.yaml`: those of trial 0."""
    return drawn(space, lambda _, one: current(settings, one.path))


def as_changes(space: Space, values: Values) -> Changes:
    """The values by parameter path, for `config.changed`.

    Raises:
        InputError: two entries set the same parameter at once.
    """
    changes: Changes = {}
    for name, value in values.items():
        path = space[name].path
        if path in changes:
            raise InputError(f"{name!r} sets train.{path}, and so does an entry above it: separate them by `when`")
        changes[path] = value
    return changes


def check_space(search: Search, settings: Train) -> None:
    """Refuse a space in which a trial could be impossible, before the first one.

    Every pair of extreme values is tried, because some bounds depend on another parameter.

    Raises:
        InputError: a path names no parameter, a range leaves the parameter's own bounds, or `params.yaml` lies outside.
    """
    for name, one in search.space.items():
        if one.path.split(".")[0] in OWN:
            raise InputError(f"{name!r} searches train.{one.path}, which every trial sets itself: {', '.join(OWN)}")
        current(settings, one.path)
    for name, value in present(search.space, settings).items():
        if not holds(search.space[name], value):
            raise InputError(f"params.yaml's train.{search.space[name].path} is {value}, outside {name!r}: widen it")
    for values in _corners(search.space, settings):
        try:
            with_overrides(settings, as_changes(search.space, values))
        except InputError as error:
            raise InputError(f"the search's space allows {_short(values)}: {error}") from None


def _corners(space: Space, settings: Train) -> Iterator[Values]:
    """Settings with every pair of entries at their extremes and the rest as in `params.yaml`."""
    rest = {name: _inside(one, current(settings, one.path)) for name, one in space.items()}
    for one, other in itertools.combinations_with_replacement(space, 2):
        for first, second in itertools.product(ends(space[one]), ends(space[other])):
            for wanted in _reaching(space, {one: first, other: second}):
                chosen = rest | wanted
                yield drawn(space, lambda name, _, chosen=chosen: chosen[name])  # type: ignore[misc]


def _inside(one: Entry, value: Value) -> Value:
    return value if holds(one, value) else ends(one)[0]


def _reaching(space: Space, wanted: Values) -> Iterator[Values]:
    """The wanted values with each combination of others that makes them active; none where they exclude each other."""
    needed = dict(wanted)
    for name in reversed(list(space)):
        if name in needed:
            for other, allowed in space[name].when.items():
                if other not in needed:
                    for value in allowed:
                        yield from _reaching(space, needed | {other: value})
                    return
                if needed[other] not in allowed:
                    return
    yield needed


def _short(values: Values) -> str:
    return ", ".join(f"{name} = {value}" for name, value in values.items())
