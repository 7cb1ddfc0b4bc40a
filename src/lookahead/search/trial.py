"""One trial: a training with some settings, scored; checks on the way may end it, and a failure keeps its reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import optuna
import torch
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from lookahead.config import Evaluate, Search, Train, World, with_overrides
from lookahead.errors import InputError
from lookahead.evaluation.evaluator import Evaluator, open_evaluator
from lookahead.search.scores import Scores, mean_scores, score, settings_of
from lookahead.search.space import as_overrides, suggest
from lookahead.search.storage import first_number, retry
from lookahead.training.loop import OnCheckpoint, train

FAILURES = (InputError, MemoryError, RuntimeError)  # torch's "out of memory" is a RuntimeError
HOPELESS = 3  # failed trials without any other: something else than the settings is wrong
SCORES, REASON, UNTUNED = "scores", "reason", "untuned"
Objective = Callable[[optuna.Trial], float | tuple[float, ...]]


class Recorder(Protocol):
    """The record of a study or of a trial (`lookahead.tracking`)."""

    def log(self, metrics: Mapping[str, float], step: int, /) -> None:
        """Take a row of the curves."""

    def child(self, name: str, settings: Mapping[str, object], tags: Mapping[str, str], /) -> Recorder:
        """The record of a trial; that of one that is run again is continued."""

    def finish(self, out: Path | None, metrics: Mapping[str, float] | None = None, /) -> dict[str, Any]:
        """Log the output, None after a failure, and return the lineage."""


@dataclass
class Context:
    """What the trials of a study share: parameters, `folder` on this machine, the open evaluator."""

    world: World
    evaluate: Evaluate
    search: Search
    features: Path
    folder: Path
    record: Recorder
    evaluators: dict[str, Evaluator] = field(default_factory=dict)

    def evaluator(self, settings: Evaluate) -> Evaluator:
        """The evaluator on the people of a split; only one stays open."""
        if settings.split not in self.evaluators:
            self.evaluators.clear()
            self.evaluators[settings.split] = open_evaluator(self.world.checkpoints, settings)
        return self.evaluators[settings.split]

    def trial_settings(self) -> Evaluate:
        """The evaluation of every trial: the same people, prompts and noise (common random numbers)."""
        search = self.search
        sizes = {"people": search.people, "photo_prompts": search.photo_prompts}
        sizes["num_inference_steps"] = search.num_inference_steps
        return settings_of(self.evaluate, search.split, search.seed, **sizes)


def search_trial(context: Context, trial: optuna.Trial) -> float | tuple[float, ...]:
    """Draw settings, train for fewer steps with the study's seed, score on the split of the search."""
    search = context.search
    constrained, every = search.mode == "constrained", search.checks.every
    values = suggest(search.space, trial)
    fixed = {"steps": search.steps, "seed": search.seed, "sample_every": search.steps}
    fixed["checkpoint_every"] = every if constrained else search.steps
    settings = with_overrides(context.world.train, as_overrides(search.space, values) | fixed)
    check = partial(_check, context, trial) if constrained else None
    name = f"trial-{first_number(trial.study.get_trials(deepcopy=False)[trial.number]):03d}"
    means = run_trial(context, trial, name, settings, values, context.trial_settings(), check)
    if not constrained:
        return means["identity"], means["prompt"]
    floor = mean_scores(untuned(context, trial.study))["prompt"] - search.prompt_loss
    trial.set_constraint("prompt", floor - means["prompt"])
    return means["identity"]


def untuned(context: Context, study: optuna.Study) -> Scores:
    """The untuned adapter's scores, measured once a study; other workers of this machine wait for them."""
    context.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(context.folder / "untuned.lock"):
        if UNTUNED not in study.user_attrs:
            settings = context.trial_settings()
            scores = score(context.evaluator(settings), None, context.folder / "untuned")
            study.set_user_attr(UNTUNED, scores)
    return dict(study.user_attrs[UNTUNED])


def _check(context: Context, trial: optuna.Trial, encoder: Path, step: int) -> None:
    """Report identity on some of the people at a step, and end the trial where the median is better."""
    evaluator, pictures = context.evaluator(context.trial_settings()), encoder.with_name("pictures")
    identity = mean_scores(score(evaluator, encoder, pictures, context.search.checks.people))["identity"]
    trial.report(identity, step)
    if trial.should_prune():
        raise optuna.TrialPruned(f"identity {identity:.3f} at step {step} is below the median")


def run_trial(
    context: Context,
    trial: optuna.Trial,
    name: str,
    settings: Train,
    values: Mapping[str, object],
    evaluate: Evaluate,
    check: OnCheckpoint | None = None,
    known: Callable[[], Scores | None] = lambda: None,
) -> dict[str, float]:
    """Train and score, and record it; a trial that is run again continues from its checkpoints.

    `check` gets the encoder of the networks in training at every checkpoint; `known` finds scores of another worker.
    """
    work, trained = context.folder / name, context.folder / name / "training"
    work.mkdir(parents=True, exist_ok=True)
    with FileLock(work.with_suffix(".lock")):
        if (scores := known()) is not None:
            return _keep(trial, scores)
        tags = {"optuna.study": trial.study.study_name, "optuna.trial": str(trial.number)}
        record = context.record.child(name, values, tags)
        try:
            if not (trained / "metrics.json").exists():  # what a training writes last
                checkpoints, features = context.world.checkpoints, context.features
                train(checkpoints, settings, features, trained, record.log, on_checkpoint=check)
            scores = score(context.evaluator(evaluate), trained / "encoder", work / "pictures")
        except (optuna.TrialPruned, *FAILURES) as error:
            record.finish(trained if isinstance(error, optuna.TrialPruned) else None)
            shutil.rmtree(work, ignore_errors=True)
            raise
        means = _keep(trial, scores)
        record.finish(trained, means)
        shutil.rmtree(work, ignore_errors=True)
    return means


def _keep(trial: optuna.Trial, scores: Scores) -> dict[str, float]:
    means = mean_scores(scores)
    for key, value in {SCORES: scores, **means}.items():
        trial.set_user_attr(key, value)
    return means


def reason_of(error: BaseException) -> str:
    """The first line of an error, with its kind where the message alone does not tell."""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    return first if isinstance(error, InputError | optuna.TrialPruned) else f"{type(error).__name__}: {first}"


def optimize(study: optuna.Study, objective: Objective, retries: int, *stop: Callable[..., None]) -> None:
    """`study.optimize` that goes on after failures, keeps their reasons, and queues an interrupted trial again."""

    def recorded(trial: optuna.Trial) -> float | tuple[float, ...]:
        try:
            return objective(trial)
        except (optuna.TrialPruned, *FAILURES) as error:
            trial.set_user_attr(REASON, reason_of(error))
            raise
        except KeyboardInterrupt:
            retry(retries)(study, study.get_trials()[trial.number])
            raise
        finally:
            torch.cuda.empty_cache()  # of a trial that ran out of memory; nothing happens without a GPU

    while True:
        try:
            return study.optimize(recorded, catch=FAILURES, callbacks=[_stop_if_hopeless, *stop])
        except (ValueError, UpdateFinishedTrialError) as error:
            if isinstance(error, ValueError) and "Cannot tell" not in str(error):
                raise
            # Another worker took this one for dead and runs its trial again.


def _stop_if_hopeless(study: optuna.Study, _trial: FrozenTrial) -> None:
    trials = study.get_trials(deepcopy=False)
    reasons = [trial.user_attrs[REASON] for trial in trials if REASON in trial.user_attrs]
    useful = any(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in trials)
    if len(reasons) >= HOPELESS and not useful:
        raise InputError(f"all of the first {len(reasons)} trials failed, the last one so: {reasons[-1]}")
