"""What all stages share: they build in a workspace, publish a whole directory, and record where it came from."""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

from lookahead.artifacts import (
    STATE,
    Log,
    code_digest,
    digest,
    files_below,
    local_paths,
    publish,
    recover,
    workspace,
    write_json,
)
from lookahead.config import Params, World, read_params
from lookahead.errors import InputError, one_message
from lookahead.tracking import Origin, open_recorder
from lookahead.world import require
from lookahead.world.distributed import broadcast_object, is_main_process, wait_for_everyone

RUNS = Path("runs")


@dataclass(frozen=True)
class Job:
    """One run of a stage: its world's parameters, the other stages' outputs, where to build, and where curves go."""

    world: World
    runs: Path
    work: Path
    log: Log


@dataclass(frozen=True)
class Stage:
    """A stage of the pipeline: what it reads, what else decides its output, and how that is built."""

    name: str  # its output's path below `<root>/<world>`
    sections: tuple[str, ...]  # of the world's parameters
    inputs: tuple[str, ...]  # outputs of other stages
    build: Callable[[Job], None]  # fills the workspace; every process of a launch calls it
    settings: Mapping[str, object] = field(default_factory=dict)  # what else its output depends on
    root: Path = RUNS
    optional_inputs: tuple[str, ...] = ()  # outputs that it reads where they exist
    code: tuple[str, ...] = ()  # folders and files of the package that decide its output, as its `deps` in dvc.yaml
    irrelevant: tuple[str, ...] = ()  # parameters that change no output, such as "train.checkpoint_every"


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def input_paths(stage: Stage, settings: Mapping[str, object], runs: Path) -> list[Path]:
    """What the stage reads: other stages' outputs, and every file or folder that its parameters name."""
    for name in stage.inputs:
        if not (runs / name).is_dir():
            raise InputError(
                f"{runs / name} does not exist: run `lookahead {name.split('/')[0]}` first, or `dvc repro`"
            )
    optional = [runs / name for name in stage.optional_inputs if (runs / name).is_dir()]
    return [runs / name for name in stage.inputs] + optional + sorted(set(local_paths(dict(settings))))


def check_tracked(settings: Mapping[str, object], world_name: str) -> None:
    """Refuse paths of the parameters that no stage in dvc.yaml depends on: DVC would not see what changes there."""
    roots = [
        Path(root).resolve() for root in (f"models/{world_name}", f"runs/{world_name}/features", "prompts", "protocols")
    ]
    for path in local_paths(dict(settings)):
        if not any(root in (path.resolve(), *path.resolve().parents) for root in roots):
            raise InputError(
                f"params.yaml names {path}, where DVC would not notice a change: move it below models/{world_name}, "
                "prompts or protocols"
            )


def fingerprint(paths: list[Path]) -> str:
    """Names, sizes and times of all files below the paths: as good as their contents for one machine's resuming."""
    stats = [(str(file), file.stat()) for path in paths for file in files_below(path)]
    return digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def run_stage(stage: Stage, params: Params, world_name: str) -> Path:
    """Run one stage and return its output; a killed run with equal parameters, code and inputs continues.

    Every process of a launch calls this. The output is published before tracking is finished, so that a broken store
    loses nothing.
    """
    from lookahead.plan import STAGES, announcement, record  # here: it is no code that decides an output

    world, runs = params.of(world_name), RUNS / world_name
    if "checkpoints" in stage.sections:
        require(world.checkpoints, world_name)
    sections = {name: world.settings(name) for name in stage.sections}
    check_tracked(sections, world_name)
    settings = sections | dict(stage.settings)
    inputs = input_paths(stage, settings, runs)
    decisive = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    decisive = {name: decisive[name] for name in decisive.keys() - set(stage.irrelevant)} | dict(stage.settings)
    key = broadcast_object(digest(decisive, fingerprint(inputs), code_digest(*stage.code))[:16])
    work, out = workspace(f"{world_name}/{stage.name}", key), stage.root / world_name / stage.name
    if not is_main_process():
        stage.build(Job(world, runs, work, lambda _metrics, _step: None))
        wait_for_everyone()
        return out
    with _alone(work):
        recover(work, out)
        if stage.name == STAGES[0]:
            tqdm.write(announcement(world))
        recorder = open_recorder(params, Origin(stage.name, world_name, settings, tuple(inputs), key))
        start = time.monotonic()
        try:
            stage.build(Job(world, runs, work, recorder.log))
            seconds = time.monotonic() - start
            publish(work, out)
        except BaseException:
            recorder.finish(None)
            raise
        write_json(out.with_name(f"{out.name}.run.json"), recorder.finish(out))
    shutil.rmtree(STATE / "work" / world_name / stage.name, ignore_errors=True)  # resume state, also of older runs
    record(world, stage.name, seconds)
    wait_for_everyone()
    return out


def _alone(work: Path) -> AbstractContextManager[object]:
    """Hold the workspace's lock: whoever finds a run of this workspace in the tracking store knows that it is dead."""
    try:
        return FileLock(work.with_name(f"{work.name}.lock")).acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process is running this stage in {work}: wait for it, or end it") from None


def main(stages: Mapping[str, Stage]) -> None:
    """Run the stages, by variant, that the command line asks for; bad input is one message and exit code 1."""
    parser = argparse.ArgumentParser(description="Run one stage; `dvc repro` runs all that are out of date.")
    parser.add_argument("--world", help="a world of params.yaml (default: its `world`)")
    if "" not in stages:
        parser.add_argument("--variant", choices=list(stages), help="one of them (default: all)")
    options = parser.parse_args()
    chosen = [stage for name, stage in stages.items() if getattr(options, "variant", None) in (None, name)]
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", cores())))
    with one_message():
        params = read_params()
        for stage in chosen:
            run_stage(stage, params, options.world or params.world)
