"""The front of a study, in what order its settings are preferred, and which confirmed one is recommended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from lookahead.config import Search
from lookahead.evaluation.statistics import Array, Interval, interval
from lookahead.search.judge import Scores
from lookahead.search.study import SLOT, Slot, settled

DEFAULT = 0  # the slot of params.yaml's own values
RULE = (
    "Of the front, settings whose prompt alignment is at most prompt_loss below the untuned adapter's come first, by "
    "identity; then the others, by prompt alignment. Recommended is the one of those confirmed that beats params.yaml "
    "in one figure without a significant loss in the other, on people and with seeds that the search never saw; of "
    "several, the one with the higher identity; of none, params.yaml stays."
)


def scores_of(trial: FrozenTrial) -> Scores:
    """What the storage keeps of a complete trial, person by person."""
    return Scores(trial.user_attrs["identity"], trial.user_attrs["prompt"])


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """The trials with both figures, by slot."""
    return [trial for trial in settled(study) if trial.state == TrialState.COMPLETE]


def front(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that no other trial beats in one figure and equals or beats in the other."""
    points = [scores_of(trial).means() for trial in trials]
    return [trial for trial, own in zip(trials, points, strict=True) if not any(_beats(other, own) for other in points)]


def _beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one != other and one[0] >= other[0] and one[1] >= other[1]


def preferred(trials: Sequence[FrozenTrial], floor: float) -> list[FrozenTrial]:
    """The trials in the order of the rule; `floor` is the least prompt alignment that is tolerated."""

    def key(trial: FrozenTrial) -> tuple[bool, float, int]:
        identity, prompt = scores_of(trial).means()
        allowed = prompt >= floor
        return (not allowed, -(identity if allowed else prompt), trial.user_attrs[SLOT])

    return sorted(trials, key=key)


def confirmations(study: optuna.Study, search: Search, base: Scores) -> dict[int, Slot]:
    """What the confirmation trains: params.yaml and the front's preferred settings, each with every fresh seed."""
    trials = complete(study)
    ranked = preferred(front(trials), base.means()[1] - search.prompt_loss)
    chosen = [trial for trial in ranked if trial.user_attrs[SLOT] != DEFAULT][: search.confirm.settings]
    default = [trial for trial in trials if trial.user_attrs[SLOT] == DEFAULT]
    seeds = search.confirm.seeds
    return {
        trial.user_attrs[SLOT] * len(seeds) + number: Slot(
            {}, {"setting": trial.user_attrs[SLOT], "seed": seed, "values": trial.params}
        )
        for trial in default + chosen
        for number, seed in enumerate(seeds)
    }


@dataclass(frozen=True)
class Confirmed:
    """A setting on people that the search never saw: its figures, and its differences to params.yaml, by name."""

    slot: int
    means: dict[str, Interval]
    differences: dict[str, Interval]


def confirmed(study: optuna.Study, slots: Mapping[int, Slot], resamples: int, seed: int) -> list[Confirmed]:
    """The settings of which every planned seed was trained, params.yaml first; seeds are averaged person by person.

    Without params.yaml's own figures nothing can be compared, and the list is empty.
    """
    by_setting: dict[int, list[FrozenTrial]] = {}
    for trial in complete(study):
        if trial.user_attrs[SLOT] in slots:
            by_setting.setdefault(trial.user_attrs["setting"], []).append(trial)
    planned = Counter(slot.told["setting"] for slot in slots.values())
    people = {slot: _people(trials) for slot, trials in by_setting.items() if len(trials) == planned[slot]}
    if DEFAULT not in people:
        return []
    return [
        Confirmed(
            slot,
            {name: interval(array, resamples, seed) for name, array in own.items()},
            {name: interval(array - people[DEFAULT][name], resamples, seed) for name, array in own.items()},
        )
        for slot, own in sorted(people.items())
    ]


def _people(trials: Sequence[FrozenTrial]) -> Mapping[str, Array]:
    scores = [scores_of(trial) for trial in trials]
    return {
        "identity": np.mean([one.identity for one in scores], axis=0),
        "prompt": np.mean([one.prompt for one in scores], axis=0),
    }


def recommended(results: Sequence[Confirmed]) -> int:
    """The slot of the recommended setting (RULE)."""
    better = [one for one in results if one.slot != DEFAULT and _is_better(one)]
    return max(better, key=lambda one: one.means["identity"].measured()[0]).slot if better else DEFAULT


def _is_better(one: Confirmed) -> bool:
    changes = [value.measured() for value in one.differences.values()]
    return any(low > 0 for _, low, _ in changes) and not any(high < 0 for _, _, high in changes)
