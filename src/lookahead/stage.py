"""What all stages share: they build in a workspace, publish a whole directory, and tell where it came from."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lookahead.artifacts import STATE, Log, digest, files_below, publish, workspace, write_json
from lookahead.config import Params, World, read_params
from lookahead.errors import InputError
from lookahead.tracking import Origin, open_recorder
from lookahead.world.processes import claim_gpu, launched

RUNS = Path("runs")
EXEMPT = ("lookahead.cli", "lookahead.config", "lookahead.doctor", "lookahead.tracking")  # these change no output


@dataclass(frozen=True)
class Job:
    """One run of a stage: its world's parameters, the other stages' outputs, where to build, and where curves go."""

    world: World
    runs: Path
    work: Path
    log: Log


@dataclass(frozen=True)
class Stage:
    """A stage: its output's path below `<root>/<world>`, its own sections of the world, the outputs that it reads, the
    function that fills its workspace, what else its output depends on, and outputs that it reads where there are any.
    """

    name: str
    sections: tuple[str, ...]
    reads: tuple[str, ...]
    build: Callable[[Job], None]
    told: Mapping[str, object] = field(default_factory=dict)
    root: Path = RUNS
    reads_if_there: tuple[str, ...] = ()


def cores() -> int:
    """The processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def local_paths(settings: object) -> Iterator[Path]:
    """The files and folders that parameters name; hub ids name none."""
    if isinstance(settings, dict):
        for value in settings.values():
            yield from local_paths(value)
    elif isinstance(settings, str) and settings:
        path = Path(settings.removeprefix("local-dir:"))
        if path.exists():
            yield path


def inputs_of(stage: Stage, settings: Mapping[str, object], runs: Path) -> list[Path]:
    """What the stage reads: other stages' outputs, and every file or folder that its parameters name.

    Raises:
        InputError: an earlier stage has not run.
    """
    for name in stage.reads:
        if not (runs / name).is_dir():
            raise InputError(
                f"{runs / name} does not exist: run `lookahead {name.split('/')[0]}` first, or `dvc repro`"
            )
    further = [runs / name for name in stage.reads_if_there if (runs / name).is_dir()]
    return [runs / name for name in stage.reads] + further + sorted(set(local_paths(dict(settings))))


def code_files() -> list[Path]:
    """The package's loaded modules, those that change no output aside."""
    loaded = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "lookahead"}
    return sorted(Path(m.__file__) for name, m in loaded.items() if m.__file__ and not name.startswith(EXEMPT))


def fingerprint(paths: list[Path]) -> str:
    """Names, sizes and times of all files below the paths: as good as their contents for one machine's resuming."""
    stats = [(str(file), file.stat()) for path in paths for file in files_below(path)]
    return digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])


def run_stage(stage: Stage, params: Params, world_name: str) -> Path:
    """Run one stage and return its output; a killed run with equal parameters, code and inputs continues.

    The output is published before tracking is finished, so that a broken store loses nothing.

    Raises:
        InputError: a parameter or an input is wrong, or a file cannot be written; an earlier output stays.
    """
    if world_name not in params.worlds:
        raise InputError(f"there is no world {world_name!r}: params.yaml has {', '.join(sorted(params.worlds))}")
    world, runs = params.worlds[world_name], RUNS / world_name
    if "checkpoints" in stage.sections:
        from lookahead.world import require  # here: a table opens none, and needs none of its libraries

        require(world.checkpoints, world_name)
    settings = {name: world.told(name) for name in stage.sections} | dict(stage.told)
    inputs = inputs_of(stage, settings, runs)
    key = digest(settings, fingerprint(inputs + code_files()))[:16]
    work, out = workspace(f"{world_name}/{stage.name}", key), stage.root / world_name / stage.name
    recorder = open_recorder(params, Origin(stage.name, world_name, settings, tuple(inputs), key))
    try:
        stage.build(Job(world, runs, work, recorder.log))
        publish(work, out)
    except BaseException:
        recorder.finish(None)
        raise
    write_json(runs / f"{stage.name}.run.json", recorder.finish(out))
    shutil.rmtree(STATE / "work" / world_name / stage.name, ignore_errors=True)  # resume state, also of older runs
    return out


def _arguments(variants: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run one stage; `dvc repro` runs all that are out of date.")
    parser.add_argument("--world", help="a world of params.yaml (default: its `world`)")
    if len(variants) > 1:
        parser.add_argument("--variant", choices=variants, help="one of them (default: all)")
    return parser.parse_args()


def _assisting(assist: Callable[[], None] | None) -> Callable[[], None]:
    if assist is None:
        raise InputError("this stage runs in one process: start it without a launcher, or with --num_processes 1")
    return assist


def main(stages: Mapping[str, Stage], assist: Callable[[], None] | None = None) -> None:
    """Run the stages, by variant, that the command line asks for; bad input is one message and exit code 1.

    Where several processes are launched, the others call `assist` as often as the first one runs a stage.
    """
    options = _arguments(list(stages))
    chosen = [stage for name, stage in stages.items() if getattr(options, "variant", None) in (None, name)]
    claim_gpu(launched())
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", cores())))
    try:
        if not launched().first:
            for _ in chosen:
                _assisting(assist)()
            return
        params = read_params()
        for stage in chosen:
            run_stage(stage, params, options.world or params.world)
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command continues")
