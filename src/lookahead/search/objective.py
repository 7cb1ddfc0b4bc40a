"""A trial: what it draws from the space, its training, its scores person by person; checks on the way may end it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna
from filelock import FileLock
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from pydantic import JsonValue

from lookahead.config import Choices, Evaluate, FloatRange, IntRange, Search, Train, World, with_overrides
from lookahead.errors import InputError
from lookahead.evaluation.cells import FULL, Cell
from lookahead.evaluation.contrasts import UNTRAINED
from lookahead.evaluation.evaluator import Evaluator, open_evaluator
from lookahead.training.loop import OnCheckpoint, train

if TYPE_CHECKING:
    from lookahead.tracking import Recorder

Entry = FloatRange | IntRange | Choices
Space = Mapping[str, Entry]
Values = dict[str, JsonValue]  # by name in the space
Scores = dict[str, list[float]]  # by metric, one number a person
METRICS = ("identity", "prompt")
SCORES, REASON, UNTUNED = "scores", "reason", "untuned"  # attributes of a trial, of one that ended early, of the study
MLFLOW_RUN = "mlflow_run"  # of a trial: its run's id
FAILURES = (InputError, MemoryError, RuntimeError)  # torch's "out of memory" is a RuntimeError
# What a trial sets itself: the same for all, so that luck and length are not searched.
FIXED = ("steps", "seed", "checkpoint_every", "checkpoints_total_limit", "sample_every")
_CORNERS = 500  # settings at the ends of ranges that are tried: every pair of ends comes many times
_COLUMNS = {"identity_select": "identity", "prompt": "prompt"}  # the report's recogniser is left to `evaluate`
_DIGITS = 6  # of what the storage keeps of a person


def first_number(trial: FrozenTrial) -> int:
    """The number of a trial, that of its first attempt where it is run again."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def complete(study: optuna.Study) -> list[FrozenTrial]:
    """The trials with scores."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def active(space: Space, choose: Callable[[str, Entry], JsonValue]) -> Values:
    """The values of those entries whose conditions hold, asked for in the order of the space."""
    values: Values = {}
    for name, one in space.items():
        if all(other in values and values[other] in allowed for other, allowed in one.when.items()):
            values[name] = choose(name, one)
    return values


def suggest(space: Space, trial: optuna.Trial) -> Values:
    """The values that Optuna draws for a trial."""

    def choose(name: str, one: Entry) -> JsonValue:
        if isinstance(one, Choices):
            return trial.suggest_categorical(name, one.choices)
        draw = trial.suggest_float if isinstance(one, FloatRange) else trial.suggest_int
        return draw(name, one.low, one.high, log=one.log)  # type: ignore[arg-type]

    return active(space, choose)


def present(space: Space, settings: Train) -> Values:
    """The values of `params.yaml`: those of trial 0."""
    return active(space, lambda _, one: attrgetter(one.path)(settings))


def as_overrides(space: Space, values: Mapping[str, JsonValue]) -> Values:
    """The values by parameter path below `train`."""
    changes: Values = {}
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
    ends = {name: one.choices if isinstance(one, Choices) else [one.low, one.high] for name, one in space.items()}
    for _ in range(_CORNERS):
        corner = active(space, lambda name, _: draw.choice(ends[name]))
        try:
            with_overrides(settings, as_overrides(space, corner))
        except InputError as error:
            values = ", ".join(f"{name} = {value}" for name, value in corner.items())
            raise InputError(f"the search's space allows {values}: {error}") from None
    for name, value in present(space, settings).items():
        one = space[name]
        inside = value in one.choices if isinstance(one, Choices) else one.low <= value <= one.high  # type: ignore[operator]
        if not inside:
            raise InputError(f"params.yaml's train.{one.path} is {value}, outside {name!r}: widen it")


@dataclass
class Task:
    """A search in a world: where features lie, the folder of studies and trials, the shared storage, which worker."""

    world: World
    evaluate: Evaluate
    search: Search
    features: Path
    state: Path
    address: str | None = None
    worker: str = ""  # others than the first of a machine draw other settings
    _evaluator: Evaluator | None = None

    def evaluator(self, settings: Evaluate) -> Evaluator:
        """The evaluator on the people of a split; only one stays open."""
        if self._evaluator is None or self._evaluator.settings != settings:
            self._evaluator = None  # closed before the other one is opened
            self._evaluator = open_evaluator(self.world.checkpoints, settings)
        return self._evaluator

    def settings(self, split: str, seed: int, **changes: object) -> Evaluate:
        """The world's evaluation on the people of another split; nothing is steered."""
        return with_overrides(self.evaluate, {"split": split, "seed": seed, "seeds": 1, "steering": None, **changes})

    def trial_settings(self) -> Evaluate:
        """The evaluation of every trial: the same people, prompts and noise (common random numbers)."""
        own = self.search.model_dump(include={"people", "photo_prompts", "num_inference_steps"})
        return self.settings(self.search.split, self.search.seed, **own)


def mean_scores(scores: Scores) -> dict[str, float]:
    """Means over people."""
    return {name: float(np.mean(values)) for name, values in scores.items()}


def score(evaluator: Evaluator, encoder: Path | None, folder: Path, people: int | None = None) -> Scores:
    """Draw the first people with an encoder's folder, or the untuned adapter, and score them; `folder` is removed."""
    cell = Cell(folder.name, encoder, UNTRAINED, FULL, evaluator.settings.sampling)
    table = evaluator.run([cell], None, folder, people)
    shutil.rmtree(folder)
    means = table.groupby("person")[list(_COLUMNS)].mean().round(_DIGITS).rename(columns=_COLUMNS)
    return means.to_dict("list")


def untuned(task: Task, study: optuna.Study) -> Scores:
    """The untuned adapter's scores, measured once a study; other workers of this machine wait for them."""
    with FileLock(task.state / f"{study.study_name}.lock"):
        if UNTUNED not in study.user_attrs:
            evaluator, folder = task.evaluator(task.trial_settings()), task.state / study.study_name / UNTUNED
            study.set_user_attr(UNTUNED, score(evaluator, None, folder))
    return dict(study.user_attrs[UNTUNED])


def search_trial(task: Task, record: Recorder, trial: optuna.Trial) -> float | tuple[float, ...]:
    """Draw settings, train for fewer steps with the study's seed, score on the split of the search."""
    search, values = task.search, suggest(task.search.space, trial)
    constrained = search.mode == "constrained"
    fixed = {"steps": search.steps, "seed": search.seed, "sample_every": search.steps}
    fixed["checkpoint_every"] = search.checks.every if constrained else search.steps
    settings = with_overrides(task.world.train, {**as_overrides(search.space, values), **fixed})
    check = partial(_check, task, trial) if constrained else None
    name = f"trial-{first_number(trial.study.get_trials(deepcopy=False)[trial.number]):03d}"
    means = run_trial(task, record, trial, name, settings, values, task.trial_settings(), check)
    if not constrained:
        return means["identity"], means["prompt"]
    floor = mean_scores(untuned(task, trial.study))["prompt"] - search.prompt_loss
    trial.set_constraint("prompt", floor - means["prompt"])
    return means["identity"]


def _check(task: Task, trial: optuna.Trial, encoder: Path, step: int) -> None:
    """Report identity on some of the people at a step, and end the trial where the median is better."""
    evaluator, pictures = task.evaluator(task.trial_settings()), encoder.with_name("pictures")
    identity = mean_scores(score(evaluator, encoder, pictures, task.search.checks.people))["identity"]
    trial.report(identity, step)
    if trial.should_prune():
        raise optuna.TrialPruned(f"identity {identity:.3f} at step {step} is below the median")


def run_trial(
    task: Task,
    record: Recorder,
    trial: optuna.Trial,
    name: str,
    settings: Train,
    values: Mapping[str, object],
    evaluate: Evaluate,
    check: OnCheckpoint | None = None,
) -> dict[str, float]:
    """Train and score, and record it; a trial that is run again continues from its checkpoints.

    `check` gets the encoder of the networks in training at every checkpoint. Scores of the same parameters are known
    where two workers draw the last setting of a grid.
    """
    work = task.state / trial.study.study_name / name
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(work.with_suffix(".lock")):
        known = (one.user_attrs[SCORES] for one in complete(trial.study) if one.params == trial.params)
        if (scores := next(known, None)) is None:
            tags = {"optuna.study": trial.study.study_name, "optuna.trial": str(trial.number)}
            own, trained = record.child(name, values, tags), work / "training"
            try:
                if not (trained / "metrics.json").exists():  # what a training writes last
                    train(task.world.checkpoints, settings, task.features, trained, own.log, on_checkpoint=check)
                scores = score(task.evaluator(evaluate), trained / "encoder", work / "pictures")
            except (optuna.TrialPruned, *FAILURES) as error:
                own.finish(trained if isinstance(error, optuna.TrialPruned) else None)
                shutil.rmtree(work, ignore_errors=True)
                raise
            trial.set_user_attr(MLFLOW_RUN, own.finish(trained, mean_scores(scores)).get("run"))
        for key, value in {SCORES: scores, **mean_scores(scores)}.items():
            trial.set_user_attr(key, value)
        shutil.rmtree(work, ignore_errors=True)
    return mean_scores(scores)
