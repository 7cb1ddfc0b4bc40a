"""What a trial of the search, and one of the confirmation, does with its settings."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna

from lookahead.artifacts import Log, digest
from lookahead.config import Evaluate, Search, Train, World, with_overrides
from lookahead.evaluation.panel import Panel, open_panel
from lookahead.evaluation.statistics import interval
from lookahead.locks import alone
from lookahead.search.judge import Scores, judge
from lookahead.search.space import Values, as_changes, suggest
from lookahead.search.study import BOTH, FAILURES, SLOT, reason_of
from lookahead.search.trial import Check, full_settings, short_settings, tune
from lookahead.world import open_pipeline

UNTUNED = "untuned"


class Watch(Protocol):
    """Is told of trials, for whoever records them; what it does changes no number."""

    def begin(self, kind: str, slot: int, told: Mapping[str, object]) -> Log:
        """A trial starts, or starts again; returns what takes its curves."""

    def end(self, kind: str, slot: int, told: Mapping[str, object], folder: Path) -> None:
        """A trial ended: its numbers and words, and the folder of its training."""

    def finish(self, out: Path | None) -> dict[str, Any]:
        """The study ended with results, or was cut off; returns the lineage."""


@dataclass
class Bench:
    """The world, its evaluation, the search and the places that trials work in; panels are opened when needed."""

    world: World
    evaluate: Evaluate
    search: Search
    features: Path
    state: Path
    watch: Watch
    panels: dict[tuple[str, int], Panel] = field(default_factory=dict)

    def panel(self, split: str, seed: int, people: int, changes: Mapping[str, object]) -> Panel:
        """The judges of a split, whose noise derives from a seed."""
        if (split, seed) not in self.panels:
            protocol = protocol_of(self.evaluate, split, {"seed": seed, "people": people, **changes})
            checkpoints = self.world.checkpoints
            self.panels[split, seed] = open_panel(checkpoints, protocol, open_pipeline(checkpoints))
        return self.panels[split, seed]

    def trial_panel(self) -> Panel:
        """The judges of every trial: the same people, prompts and noise (common random numbers)."""
        search = self.search
        changes = {"photo_prompts": search.photo_prompts, "steps": search.sample_steps}
        return self.panel(search.split, search.seed, search.people, changes)

    def folder(self, kind: str, slot: int, settings: Train) -> Path:
        """Where a trial works; a retried one with the same settings finds its checkpoints."""
        return self.state / f"{kind}-{slot:03d}-{digest(settings.model_dump(mode='json'))[:8]}"


def protocol_of(settings: Evaluate, split: str, changes: Mapping[str, object]) -> Evaluate:
    """The world's evaluation on the people of another split; no trial is steered."""
    return with_overrides(settings, {"split": split, "seeds": 1, "steering": None, **changes})


def untuned(bench: Bench, study: optuna.Study) -> Scores:
    """The untuned adapter's scores, measured once a study; other workers of this machine wait for them."""
    with alone(bench.state / "untuned.lock"):
        known = study.user_attrs.get(UNTUNED)
        if known is None:
            pictures = bench.state / "untuned" / "pictures"
            scores = judge(bench.trial_panel(), None, pictures, bench.search.people)
            shutil.rmtree(pictures.parent)
            known = {"identity": scores.identity, "prompt": scores.prompt}
            study.set_user_attr(UNTUNED, known)
    return Scores(**known)


def search_trial(bench: Bench, trial: optuna.Trial) -> float | tuple[float, ...]:
    """Draw settings, train shortly, judge on the split of the search.

    Raises:
        InputError: the training broke down; the study records it.
        optuna.TrialPruned: a check on the way was below the median of the other trials.
    """
    search = bench.search
    values = suggest(search.space, trial)
    settings = short_settings(search, bench.world.train, as_changes(search.space, values))
    base = untuned(bench, trial.study).means()[1]
    constrained = search.mode == "constrained"
    scores = _run(bench, trial, "trial", settings, values, _check(bench, trial) if constrained else None)
    identity, prompt = scores.means()
    if not constrained:
        return identity, prompt
    trial.set_constraint("prompt", base - search.prompt_loss - prompt)
    return identity


def confirm_trial(bench: Bench, trial: optuna.Trial) -> tuple[float, float]:
    """Train the setting that the plan names at full length with a fresh seed, and judge it on other people.

    Raises:
        InputError: the training broke down; the study records it.
    """
    values = trial.user_attrs["values"]
    changes = as_changes(bench.search.space, values)
    settings = full_settings(bench.world.train, changes, trial.user_attrs["seed"])
    return _run(bench, trial, "confirm", settings, values, None).means()


def _run(bench: Bench, trial: optuna.Trial, kind: str, settings: Train, values: Values, check: Check | None) -> Scores:
    slot = trial.user_attrs[SLOT]
    work = bench.folder(kind, slot, settings)
    log = bench.watch.begin(kind, slot, {"number": trial.number, **values})
    try:
        scores = _judged(bench, kind, settings, work, log, check)
        trial.set_user_attr("identity", list(scores.identity))
        trial.set_user_attr("prompt", list(scores.prompt))
    except (optuna.TrialPruned, *FAILURES) as error:
        state = "pruned" if isinstance(error, optuna.TrialPruned) else "failed"
        bench.watch.end(kind, slot, {"state": state, "reason": reason_of(error)}, work / "training")
        shutil.rmtree(work, ignore_errors=True)
        raise
    told = told_of(scores, bench.evaluate)
    bench.watch.end(kind, slot, {"state": "complete", **told}, work / "training")
    shutil.rmtree(work)
    return scores


def told_of(scores: Scores, settings: Evaluate) -> dict[str, float]:
    """Both objectives with their 95 % intervals over people, by dotted name."""
    rows = {name: interval(np.array(getattr(scores, name)), settings.bootstrap, settings.seed).row() for name in BOTH}
    return {
        f"{name}.{end}": float(value) for name, row in rows.items() for end, value in row.items() if value is not None
    }


def _judged(bench: Bench, kind: str, settings: Train, work: Path, log: Log, check: Check | None) -> Scores:
    confirm = bench.search.confirm
    encoder = tune(bench.world.checkpoints, settings, bench.features, work / "training", log, check)
    if kind == "trial":
        return judge(bench.trial_panel(), encoder, work / "pictures", bench.search.people)
    panel = bench.panel(confirm.split, settings.seed, confirm.people, {})
    return judge(panel, encoder, work / "pictures", confirm.people)


def _check(bench: Bench, trial: optuna.Trial) -> Check:
    """Report identity on some of the people at a step, and end the trial where the median is better."""
    search = bench.search

    def check(encoder: Path, step: int) -> None:
        pictures = encoder.parent / f"step_{step}"
        identity, _ = judge(bench.trial_panel(), encoder, pictures, search.checks.people).means()
        trial.report(identity, step)
        if trial.should_prune():
            raise optuna.TrialPruned(f"identity {identity:.3f} at step {step} is below the median")

    return check
