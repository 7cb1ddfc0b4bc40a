"""What the search adds to a trial: storage, sampler, tracking, set-up of the judges.

    .venv/bin/python benchmarks/search.py                    # one trial in the world of params.yaml, tracking on
    .venv/bin/python benchmarks/search.py --steps 20         # a shorter one: the share it reports is larger then
    .venv/bin/python benchmarks/search.py --json share.json  # and write the figures as JSON

Trial 0 of a study in a temporary folder runs as `make search` runs it, with MLflow's store there, too. `training` and
`judging` are the seconds inside `tune` and `judge`; `overhead` is the rest of the trial, and `opening` what a worker
spends once, before its first trial: the space's checks, the inputs' digests, the storage, the record, the judges.
Needs `runs/<world>/features` (`make repro`).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import torch

from lookahead.artifacts import write_json
from lookahead.config import Params, Search, Tracking, read_evaluate, read_params
from lookahead.errors import InputError
from lookahead.search import objectives
from lookahead.search.inputs import inputs_of
from lookahead.search.judge import judge
from lookahead.search.objectives import Bench, search_trial, untuned
from lookahead.search.space import check_space, present
from lookahead.search.storage import open_storage
from lookahead.search.study import REASON, Slot, open_study, plan, settled, work_off
from lookahead.search.trial import tune
from lookahead.stage import RUNS, cores
from lookahead.tracking import open_study_recorder

T = TypeVar("T")
Spent = dict[str, float]


def timed(spent: Spent, name: str, action: Callable[..., T]) -> Callable[..., T]:
    """The action, its seconds added up under a name."""

    def run(*given: Any) -> T:
        start = time.perf_counter()
        try:
            return action(*given)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start

    return run


def watched_in(params: Params, folder: Path) -> Params:
    """The parameters with a store of runs in a folder of its own."""
    tracking = Tracking(enabled=True, uri=f"sqlite:///{folder}/mlflow.db", experiment="benchmark")
    return params.model_copy(update={"tracking": tracking})


def measure(name: str, search: Search, params: Params, folder: Path) -> Spent:
    """Seconds of one trial, by what they went into."""
    spent: Spent = {}
    world, features = params.worlds[name], RUNS / name / "features"
    start = time.perf_counter()
    check_space(search, world.train)
    settings = read_evaluate(world.evaluate)
    storage = open_storage(None, folder / "journal.log", search.heartbeat)
    inputs = inputs_of(world, settings, search, features)
    study, _ = open_study(name, 2, storage, search, inputs, lambda _: None)
    watch, _ = open_study_recorder(watched_in(params, folder), name, study.study_name, None)
    bench = Bench(world, settings, search, features, folder, watch)
    plan(study, {0: Slot(present(search.space, world.train), {})}, search)
    bench.trial_panel()
    spent["opening"] = time.perf_counter() - start
    untuned(bench, study)  # once a study; as long as one judging
    training, judging = timed(spent, "training", tune), timed(spent, "judging", judge)
    with patch.object(objectives, "tune", training), patch.object(objectives, "judge", judging):
        timed(spent, "trial", work_off)(study, partial(search_trial, bench), search, False)
    (trial,) = settled(study)
    if REASON in trial.user_attrs:
        raise InputError(f"the trial failed, and says nothing about time: {trial.user_attrs[REASON]}")
    spent["overhead"] = spent["trial"] - spent["training"] - spent["judging"]
    return spent


def main() -> int:
    """Measure one trial and print where its time went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--world", help="default: the one of params.yaml")
    parser.add_argument("--steps", type=int, help="of the trial's training; default: studies.search's")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", cores())))
    params = read_params()
    name = options.world or params.world
    search = params.studies.search[name].model_copy(update={"mode": "pareto"})
    if options.steps:
        search = search.model_copy(update={"steps": options.steps})
    try:
        with tempfile.TemporaryDirectory() as folder:
            spent = measure(name, search, params, Path(folder))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps({key: round(value, 2) for key, value in spent.items()}, indent=2))
    share = (spent["overhead"] + spent["opening"] / search.trials) / spent["trial"]
    print(f"overhead with its share of the opening: {share:.1%} of a trial")
    if options.json:
        write_json(options.json, spent | {"share": share})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
