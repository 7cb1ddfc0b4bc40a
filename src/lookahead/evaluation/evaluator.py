"""The evaluator: draws and scores cells, what is cached not again, and returns the long table, one row a picture."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow as pa
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import STATE, atomic, digest_paths, write_parquet, writing
from lookahead.config import Checkpoints, Evaluate
from lookahead.dataset.prompts import read_prompts
from lookahead.errors import InputError
from lookahead.evaluation import pictures, samplers
from lookahead.evaluation.cells import Cell
from lookahead.evaluation.pictures import Plan, Shot
from lookahead.evaluation.scores import Scorers, open_scorers, score_key, score_shots
from lookahead.portraits import Person, read_people
from lookahead.sampling.steering import Identifier, open_identifier
from lookahead.world import Pipeline, open_pipeline
from lookahead.world.distributed import broadcast_object, is_main_process, own_share, wait_for_everyone

CACHE = os.environ.get("DVC_ROOT", ".") / STATE / "pictures"  # the repository's also in experiments that run in a copy


@dataclass(frozen=True)
class Evaluator:
    """People and prompts, and the models for drawing and scoring: each is opened once, when it is first needed."""

    checkpoints: Checkpoints
    settings: Evaluate
    people: list[Person]
    plan: Plan

    @cached_property
    def pipe(self) -> Pipeline:
        return open_pipeline(self.checkpoints)

    @cached_property
    def conditions(self) -> pictures.Conditions:
        size = self.settings.batch_size
        return pictures.encode_conditions(self.checkpoints, self.pipe, self.people, self.plan, size)

    @cached_property
    def identifier(self) -> Identifier:
        return open_identifier(self.checkpoints)

    @cached_property
    def aims(self) -> Tensor:
        return pictures.encode_aims(self.pipe, self.people, self.identifier, self.settings.batch_size)

    @cached_property
    def scorers(self) -> Scorers:
        return open_scorers(self.checkpoints, self.people, self.plan)

    @cached_property
    def score_key(self) -> str:
        return score_key(self.checkpoints, self.people, self.plan)

    @cached_property
    def _world(self) -> tuple[str, str]:
        return samplers.world_digest(self.checkpoints), digest_paths([person.reference for person in self.people])

    def key(self, cell: Cell, plan: Plan) -> str:
        """The name of the cell's pictures in the cache."""
        encoder = samplers.encoder_digest(self.checkpoints, cell.encoder, cell.sampling)
        sampler = samplers.sampler_digest(self.checkpoints, cell.sampling)
        return samplers.picture_key(*self._world, plan, self.settings.batch_size, [encoder, sampler])

    def run(self, cells: Sequence[Cell], out: Path | None, cache: Path, people: int | None = None) -> pd.DataFrame:
        """Draw and score cells, of the first `people` only or of all; every process of a launch calls this.

        `out` receives the pictures, `<cell>/<sampler>/<training seed>/00000.parquet`; None keeps them in the cache.
        Returns one row a picture, cell by cell in the order of the plan: cell, sampler, training_seed, person, style,
        scene, repeat, noise_seed, and the scores.
        """
        plan = self.plan.of_people(people)
        folders = [self.draw(cell, plan, cache) for cell in cells]
        tables = [self._scored(cell, plan, folder) for cell, folder in zip(cells, folders, strict=True)]
        if out is not None and is_main_process():
            for cell, folder in zip(cells, folders, strict=True):
                own = out / cell.name / cell.sampler / str(cell.training_seed)
                for name in self._shards(plan):  # copied, as the output is no other run's file
                    pictures.read_pngs(folder / name)  # refuses a damaged one
                    with atomic(own / name) as path:
                        shutil.copyfile(folder / name, path)
        return pd.concat(tables, ignore_index=True)

    def _shards(self, plan: Plan) -> dict[str, list[Shot]]:
        """The shots of each batch by the name of the files that hold their pictures and their scores."""
        shots, size = plan.shots, self.settings.batch_size
        starts = range(0, len(shots), size)
        return {f"{number:05d}.parquet": shots[start : start + size] for number, start in enumerate(starts)}

    def draw(self, cell: Cell, plan: Plan, cache: Path) -> Path:
        """The folder in the cache with the cell's pictures of a plan; those that are there are not drawn again."""
        folder, shards = cache / self.key(cell, plan), self._shards(plan)
        with _filling(folder, list(shards)) as missing:
            if missing:
                aims = None if cell.sampling.steering is None else self.aims
                conditions, opened = self.conditions, (self.pipe, self.checkpoints, cell.encoder, cell.sampling)
                with samplers.open_sampler(*opened, lambda: self.identifier) as sampler:
                    for name in tqdm(missing, desc=f"drawing, {cell.name}, {cell.sampler}", unit="batch"):
                        pngs = pictures.draw_shots(sampler, plan, shards[name], conditions, aims)
                        pictures.write_shard(folder / name, pngs)
        return folder

    def _scored(self, cell: Cell, plan: Plan, folder: Path) -> pd.DataFrame:
        scores, shards = folder / f"scores-{self.score_key}", self._shards(plan)
        with _filling(scores, list(shards)) as missing:
            for name in tqdm(missing, desc=f"scoring, {cell.name}, {cell.sampler}", unit="batch"):
                rows = score_shots(plan, shards[name], pictures.read_shard(folder / name), self.scorers)
                save_table(pd.DataFrame(rows), scores / name)
        table = pd.concat([read_table(scores / name) for name in shards], ignore_index=True)
        return table.assign(**cell.columns)[[*cell.columns, *table.columns]]

    def cached(self, cache: Path, key: str, measure: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """A table that `measure` makes, in every process, where the cache does not hold it."""
        path = cache / "tables" / f"{key}.parquet"
        if not broadcast_object(path.exists()):
            table = measure()
            if is_main_process():
                save_table(table, path)
            wait_for_everyone()
        return read_table(path)


def open_evaluator(checkpoints: Checkpoints, settings: Evaluate) -> Evaluator:
    """Read people and prompts."""
    people = read_people(Path(settings.portraits), settings.people)
    return Evaluator(checkpoints, settings, people, pictures.make_plan(read_prompts(settings.prompts), settings))


@contextmanager
def _filling(folder: Path, names: Sequence[str]) -> Iterator[Sequence[str]]:
    """The missing files that this process has to write; other launches wait, and then find the folder filled."""
    with ExitStack() as locked:
        if is_main_process():
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
            locked.enter_context(FileLock(folder / "lock"))
            for stray in folder.glob(".*"):  # what a killed run had half written
                stray.unlink()
        wait_for_everyone()
        yield [name for name in own_share(names) if not (folder / name).exists()]
        wait_for_everyone()


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table; equal tables are equal bytes."""
    write_parquet(path, pa.Table.from_pandas(table, preserve_index=False))


def save_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table for people and for DVC's plots."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def read_table(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a table, or some of its columns."""
    try:
        return pd.read_parquet(path, columns=columns)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error!s:.200}): run the command that writes it again") from None
