"""A study as tables: every trial, the front with its confirmation, and the numbers of `metrics.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from lookahead.artifacts import atomic
from lookahead.config import Evaluate, Search
from lookahead.evaluation.statistics import Interval
from lookahead.search.front import DEFAULT, RULE, Confirmed, complete, front, recommended, scores_of
from lookahead.search.judge import Scores
from lookahead.search.objectives import told_of
from lookahead.search.study import BOTH, REASON, SLOT, settled


@dataclass(frozen=True)
class Outcome:
    """A finished study with its confirmation."""

    study: optuna.Study
    search: Search
    settings: Evaluate
    base: Scores  # of the untuned adapter
    confirmed: list[Confirmed]

    @property
    def recommended(self) -> int:
        """The slot of the recommended setting."""
        return recommended(self.confirmed)


def trials_table(outcome: Outcome) -> pd.DataFrame:
    """One row a trial that counts: slot, state, drawn values, both figures with intervals, and why it failed."""
    on_front = {trial.user_attrs[SLOT] for trial in front(complete(outcome.study))}
    rows = [_row(outcome, trial) | {"front": trial.user_attrs[SLOT] in on_front} for trial in settled(outcome.study)]
    figures = [f"{name}.{end}" for name in BOTH for end in ("mean", "low", "high")]
    return pd.DataFrame(rows, columns=["slot", "state", *outcome.search.space, *figures, "front", "reason"])


def _row(outcome: Outcome, trial: FrozenTrial) -> dict[str, object]:
    figures = told_of(scores_of(trial), outcome.settings) if trial.state == TrialState.COMPLETE else {}
    reason = trial.user_attrs.get(REASON, "" if trial.state != TrialState.FAIL else "its workers died")
    return (
        {"slot": trial.user_attrs[SLOT], "state": trial.state.name.lower(), "reason": reason} | trial.params | figures
    )


def front_table(outcome: Outcome, trials: pd.DataFrame) -> pd.DataFrame:
    """The front's rows and that of params.yaml, with what the confirmation found, by identity."""
    shown = trials[trials["front"] | (trials["slot"] == DEFAULT)].drop(columns=["reason", "state"])
    found = pd.DataFrame([_confirmation(one) for one in outcome.confirmed] or [{"slot": -1}])
    table = shown.merge(found, on="slot", how="left").assign(recommended=lambda t: t["slot"] == outcome.recommended)
    return table.sort_values("identity.mean", ascending=False, ignore_index=True)


def _confirmation(one: Confirmed) -> dict[str, object]:
    row: dict[str, object] = {"slot": one.slot}
    for group, values in (("validation", one.means), ("difference", one.differences)):
        row |= {f"{group}.{name}.{end}": v for name, value in values.items() for end, v in value.row().items()}
    return row


def metrics(outcome: Outcome) -> dict[str, object]:
    """The numbers that reviewers read: the study's size, and params.yaml and the recommended setting on both splits."""
    trials = settled(outcome.study)
    counts = {state.name.lower(): sum(t.state == state for t in trials) for state in TrialState if state.is_finished()}
    return {
        "study": outcome.study.study_name,
        "mode": outcome.search.mode,
        "trials": counts,
        "front": [trial.user_attrs[SLOT] for trial in front(complete(outcome.study))],
        "recommended": outcome.recommended,
        "rule": RULE,
        "untuned": told_of(outcome.base, outcome.settings),
        "search": {str(t.user_attrs[SLOT]): told_of(scores_of(t), outcome.settings) for t in _shown(outcome)},
        "validation": {str(one.slot): _rows(one.means) for one in outcome.confirmed},
        "difference": {str(one.slot): _rows(one.differences) for one in outcome.confirmed if one.slot != DEFAULT},
    }


def _rows(values: dict[str, Interval]) -> dict[str, object]:
    return {name: value.row() for name, value in values.items()}


def _shown(outcome: Outcome) -> Sequence[FrozenTrial]:
    slots = {one.slot for one in outcome.confirmed} | {DEFAULT}
    return [trial for trial in complete(outcome.study) if trial.user_attrs[SLOT] in slots]


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
