"""The confirmation: preferred settings trained anew with fresh seeds, scored on other people, against params.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import optuna
import pandas as pd
from optuna.samplers import GridSampler
from optuna.trial import FrozenTrial, TrialState

from lookahead.artifacts import digest
from lookahead.config import Search, with_overrides
from lookahead.errors import InputError
from lookahead.evaluation.cells import FULL
from lookahead.evaluation.contrasts import HIGHER, Contrast, contrasts, summary
from lookahead.search.objective import METRICS, SCORES, Scores, Task, run_trial
from lookahead.search.space import as_overrides, present
from lookahead.search.study import complete, first_number, optimize

if TYPE_CHECKING:
    from lookahead.tracking import Recorder

DEFAULT = 0  # the number of the trial with params.yaml's own values
RULE = (
    "Of the front, settings whose prompt alignment is at most prompt_loss below the untuned adapter's come first, by "
    "identity; then the others, by prompt alignment. Recommended is the one of those confirmed that is better than "
    "params.yaml in one figure and no worse in the other (the interval excludes a loss of evaluate.margin), on people "
    "and with seeds that the search never saw; of several, the one with the higher identity; else params.yaml stays."
)


def preferred(study: optuna.Study, search: Search, floor: float) -> list[int]:
    """The numbers of the settings to confirm, in the order of the rule; `floor` is the least prompt alignment."""
    front = study.best_trials if search.mode == "pareto" else complete(study)

    def key(trial: FrozenTrial) -> tuple[bool, float, int]:
        identity, prompt = trial.user_attrs["identity"], trial.user_attrs["prompt"]
        allowed = prompt >= floor
        return not allowed, -(identity if allowed else prompt), trial.number

    ranked = [trial.number for trial in sorted(front, key=key) if first_number(trial) != DEFAULT]
    return ranked[: search.confirm.settings]


def chosen(study: optuna.Study, search: Search, floor: float) -> list[int]:
    """The settings of the confirmation, params.yaml first; the first worker to get here decides for all."""
    key = f"preferred {digest(search.trials, search.prompt_loss, search.confirm.settings)[:6]}"
    if key not in study.user_attrs:
        study.set_user_attr(key, [DEFAULT, *preferred(study, search, floor)])
    return list(study.user_attrs[key])


def confirm(task: Task, record: Recorder, study: optuna.Study, grid: optuna.Study, settings: Sequence[int]) -> None:
    """Train and score every setting with every fresh seed; workers that share the study `grid` share this work."""
    sampler = GridSampler({"setting": list(settings), "seed": list(task.search.confirm.seeds)})
    grid.sampler = sampler
    if grid.get_trials(deepcopy=False, states=(TrialState.WAITING,)) or not sampler.is_exhausted(grid):
        optimize(grid, partial(_confirm_trial, task, record, study), task.search.heartbeat.retries)


def _confirm_trial(task: Task, record: Recorder, study: optuna.Study, trial: optuna.Trial) -> tuple[float, ...]:
    setting, seed = trial.suggest_int("setting", 0, 10**6), trial.suggest_int("seed", 0, 2**31 - 1)
    space, own, train = task.search.space, task.search.confirm, task.world.train
    params = study.get_trials(deepcopy=False)[setting].params
    values = present(space, train) if setting == DEFAULT else params
    settings = with_overrides(train, as_overrides(space, values) | {"seed": seed})
    evaluate = task.settings(own.split, own.seeds[0], people=own.people)
    means = run_trial(
        task,
        record,
        trial,
        f"confirm-{setting}-{seed}",
        settings,
        {"setting": setting, **values},
        evaluate,
        known=lambda: confirmed(trial.study).get((setting, seed)),  # the last ones may run in two workers
    )
    return tuple(means[name] for name in METRICS)


def confirmed(grid: optuna.Study) -> dict[tuple[int, int], Scores]:
    """Scores by setting and training seed."""
    return {(trial.params["setting"], trial.params["seed"]): trial.user_attrs[SCORES] for trial in complete(grid)}


@dataclass(frozen=True)
class Confirmation:
    """What the confirmation found: means, and contrasts with params.yaml, with intervals over people and seeds."""

    means: pd.DataFrame
    contrasts: pd.DataFrame

    @property
    def recommended(self) -> int:
        """The recommended setting (RULE)."""
        better = [int(str(cell)) for cell, rows in self.contrasts.groupby("cell") if _is_better(rows)]
        identity = self.means[self.means["metric"] == "identity"].set_index("cell")["mean"]
        return max(better, key=lambda setting: float(identity[str(setting)]), default=DEFAULT)


def _is_better(rows: pd.DataFrame) -> bool:
    higher = rows["verdict"] == HIGHER
    return bool(higher.any() and (higher | rows["non_inferior"].astype(bool)).all())


def as_table(scores: Mapping[tuple[int, int], Scores]) -> pd.DataFrame:
    """Scores by setting and training seed as the long table of `evaluation.contrasts`, one row a person."""
    frames = [
        pd.DataFrame({"cell": str(setting), "sampler": FULL, "training_seed": seed, **own}).rename_axis("person")
        for (setting, seed), own in scores.items()
    ]
    return pd.concat(frames).reset_index()


def compare(
    scores: Mapping[tuple[int, int], Scores],
    settings: Sequence[int],
    seeds: Sequence[int],
    margin: Mapping[str, float],
) -> Confirmation:
    """Means and contrasts with params.yaml of those settings that have scores of every training seed."""
    whole = [one for one in settings if all((one, seed) in scores for seed in seeds)]
    if not whole:
        raise InputError("no setting could be confirmed with every seed: read the trials' reasons in optuna-dashboard")
    table = as_table({(one, seed): scores[one, seed] for one in whole for seed in seeds})
    pairs = [Contrast(f"trial {one}", str(one), str(DEFAULT)) for one in whole if one != DEFAULT]
    return Confirmation(summary(table, METRICS), contrasts(table, pairs, METRICS, margin=margin))
