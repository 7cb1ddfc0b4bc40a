"""The whole search: trials, confirmation, results; started again, it adds what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import optuna

from lookahead.artifacts import digest
from lookahead.config import Search, World, read_evaluate
from lookahead.errors import InputError
from lookahead.search.front import DEFAULT, complete, confirmations, confirmed
from lookahead.search.inputs import inputs_of
from lookahead.search.judge import Scores
from lookahead.search.objectives import UNTUNED, Bench, Watch, confirm_trial, search_trial
from lookahead.search.report import write_results
from lookahead.search.space import check_space, present
from lookahead.search.storage import Storage, open_storage
from lookahead.search.study import Slot, Tell, await_plan, open_study, plan, study_name, work_off
from lookahead.search.tables import Outcome

TRACKED = "tracked"  # the study's attribute that names its run in the history


@dataclass(frozen=True)
class Task:
    """A search in a world: where the features lie, where studies and trials are kept, and who is told."""

    name: str  # of the world
    world: World
    search: Search
    features: Path
    state: Path
    address: str | None  # of a storage that several machines share
    tell: Tell


Watching = Callable[[str, str | None], tuple[Watch, str | None]]


def run_search(task: Task, watching: Watching, out: Path) -> dict[str, Any]:
    """Run what is missing of the study and of its confirmation, write the results into `out`, return the lineage.

    Args:
        task: what is searched.
        watching: opens the record of a study, by its name and by what its first worker got here.
        out: the folder of the results.

    Raises:
        InputError: the space is not possible, an input is missing, the storage does not answer, or every trial fails.
    """
    search, world = task.search, task.world
    check_space(search, world.train)
    settings = read_evaluate(world.evaluate)
    inputs = inputs_of(world, settings, search, task.features)
    storage = open_storage(task.address, task.state / "journal.log", search.heartbeat)
    study, new = open_study(task.name, 2 if search.mode == "pareto" else 1, storage, search, inputs, task.tell)
    if not new:
        await_plan(study)
    watch, key = watching(study.study_name, study.user_attrs.get(TRACKED))
    study.set_user_attr(TRACKED, key)
    bench = Bench(world, settings, search, task.features, task.state / study.study_name, watch)
    try:
        _try_out(task, study, bench)
        outcome = _confirm(task, storage, study, bench, inputs)
        write_results(outcome, task.name, world, out)
    except BaseException:
        watch.finish(None)
        raise
    return watch.finish(out)


def _try_out(task: Task, study: optuna.Study, bench: Bench) -> None:
    search = task.search
    slots = {number: Slot({}, {}) for number in range(search.trials)}
    slots[DEFAULT] = Slot(present(search.space, task.world.train), {})
    plan(study, slots, search)
    work_off(study, partial(search_trial, bench), search, task.address is not None)
    if not complete(study):
        raise InputError(f"no trial of {study.study_name} is complete: look at studies.search.{task.name}")


def _confirm(task: Task, storage: Storage, study: optuna.Study, bench: Bench, inputs: dict[str, str]) -> Outcome:
    """Train the front's preferred settings anew, in a study of its own, so that workers share this, too."""
    search, settings = task.search, bench.evaluate
    base = Scores(**study.user_attrs[UNTUNED])
    slots = confirmations(study, search, base)
    length = digest(search.confirm.model_dump(mode="json", exclude={"settings"}), task.world.train.steps)
    full = inputs | {"search": study_name(task.name, inputs), "confirmation": length}
    found, new = open_study(f"{task.name}-confirm", 2, storage, search, full, task.tell)
    if not new:
        await_plan(found)
    plan(found, slots, search)
    work_off(found, partial(confirm_trial, bench), search, task.address is not None)
    results = confirmed(found, slots, settings.bootstrap, settings.seed)
    return Outcome(study, search, settings, base, results)
