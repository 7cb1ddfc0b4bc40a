"""The evaluator: draws and scores cells, what is cached not again, and returns the long table, one row a picture."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import pyarrow as pa
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import atomic, digest_paths, write_parquet, writing
from lookahead.config import Checkpoints, Evaluate
from lookahead.dataset.prompts import read_prompts
from lookahead.errors import InputError
from lookahead.evaluation.cells import Cell
from lookahead.evaluation.drawing.cache import encoder_digest, picture_key, sampler_digest, world_digest
from lookahead.evaluation.drawing.conditions import Conditions, encode_aims, encode_conditions
from lookahead.evaluation.drawing.pictures import check_shard, draw_shards, read_shard, shard_name, shards_of
from lookahead.evaluation.drawing.plan import Plan, make_plan
from lookahead.evaluation.drawing.samplers import open_sampler
from lookahead.evaluation.scoring.scores import Scorers, open_scorers, score_key, score_shots
from lookahead.portraits import Person, read_people
from lookahead.sampling.steering import Identifier, open_identifier
from lookahead.world import Pipeline, open_pipeline
from lookahead.world.distributed import broadcast_object, is_main_process, own_share, wait_for_everyone


@dataclass(frozen=True)
class Evaluator:
    """People and prompts, and whatever drawing and scoring need: each is opened once, where something is not cached."""

    checkpoints: Checkpoints
    settings: Evaluate
    people: list[Person]
    plan: Plan

    @cached_property
    def pipe(self) -> Pipeline:
        """The base model: one pipeline for all cells."""
        return open_pipeline(self.checkpoints)

    @cached_property
    def conditions(self) -> Conditions:
        """Of everybody and every prompt."""
        return encode_conditions(self.checkpoints, self.pipe, self.people, self.plan, self.settings.batch_size)

    @cached_property
    def identifier(self) -> Identifier:
        """What steering recognises previews by."""
        return open_identifier(self.checkpoints)

    @cached_property
    def aims(self) -> Tensor:
        """Everybody's face to steer to."""
        return encode_aims(self.pipe, self.people, self.identifier, self.settings.batch_size)

    @cached_property
    def scorers(self) -> Scorers:
        """Recognisers and CLIP."""
        return open_scorers(self.checkpoints, self.people, self.plan)

    @cached_property
    def score_key(self) -> str:
        """What decides the scores of given pictures."""
        return score_key(self.checkpoints, self.people, self.plan)

    @cached_property
    def _world(self) -> tuple[str, str]:
        references = digest_paths([person.reference for person in self.people])
        return world_digest(self.checkpoints), references

    def key(self, cell: Cell, plan: Plan) -> str:
        """The name of the cell's pictures in the cache."""
        encoder = encoder_digest(self.checkpoints, cell.encoder, cell.sampling)
        decided = [encoder, sampler_digest(self.checkpoints, cell.sampling)]
        return picture_key(*self._world, plan, self.settings.batch_size, decided)

    def run(self, cells: Sequence[Cell], out: Path | None, cache: Path, people: int | None = None) -> pd.DataFrame:
        """Draw and score cells; every process of a launch calls this, and each does its share.

        Args:
            cells: what is drawn.
            out: receives the pictures, `<cell>/<sampler>/<training seed>/00000.parquet`; None keeps them in the cache.
            cache: holds the pictures and scores of earlier runs.
            people: only the first ones; None is all.

        Returns:
            One row a picture, cell by cell in the order of the plan: cell, sampler, training_seed, person, style,
            scene, repeat, noise_seed, and the scores.

        Raises:
            InputError: a checkpoint, an encoder or a photo is missing, damaged or does not fit.
        """
        plan = self.plan.of_people(people)
        folders = [self.draw(cell, plan, cache) for cell in cells]
        tables = [self._scored(cell, plan, folder) for cell, folder in zip(cells, folders, strict=True)]
        if out is not None and is_main_process():
            for cell, folder in zip(cells, folders, strict=True):
                _copy(folder, out / cell.folder, len(shards_of(plan, self.settings.batch_size)))
        return pd.concat(tables, ignore_index=True)

    def draw(self, cell: Cell, plan: Plan, cache: Path) -> Path:
        """The folder in the cache with the cell's pictures of a plan; those that are there are not drawn again.

        Raises:
            InputError: as `run`.
        """
        folder = cache / self.key(cell, plan)
        size = self.settings.batch_size
        with _alone(folder):
            missing = _missing(folder, len(shards_of(plan, size)))
            if missing:
                aims = None if cell.sampling.steering is None else self.aims
                conditions, opened = self.conditions, (self.pipe, self.checkpoints, cell.encoder, cell.sampling)
                with open_sampler(*opened, lambda: self.identifier) as sampler:
                    draw_shards(sampler, plan, conditions, aims, size, missing, folder, f"{cell.name}, {cell.sampler}")
        return folder

    def _scored(self, cell: Cell, plan: Plan, folder: Path) -> pd.DataFrame:
        scores, shards = folder / f"scores-{self.score_key}", shards_of(plan, self.settings.batch_size)
        with _alone(scores):
            for number in tqdm(
                _missing(scores, len(shards)), desc=f"scoring, {cell.name}, {cell.sampler}", unit="batch"
            ):
                rows = score_shots(plan, shards[number], read_shard(folder / shard_name(number)), self.scorers)
                save_table(pd.DataFrame(rows), scores / shard_name(number))
        table = pd.concat([read_table(scores / shard_name(number)) for number in range(len(shards))], ignore_index=True)
        for place, (name, value) in enumerate(
            {"cell": cell.name, "sampler": cell.sampler, "training_seed": cell.training_seed}.items()
        ):
            table.insert(place, name, value)
        return table

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
    """Read people and prompts; models are opened when something has to be drawn or scored.

    Raises:
        InputError: portraits or prompts are missing or wrong.
    """
    people = read_people(Path(settings.portraits), settings.people)
    return Evaluator(checkpoints, settings, people, make_plan(read_prompts(settings.prompts), settings))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one launch at a time fill a folder, all its processes together; others wait, and then find it filled."""
    if is_main_process():
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock"):
            for stray in folder.glob(".*"):  # what a killed run had half written
                stray.unlink()
            wait_for_everyone()
            yield
            wait_for_everyone()
    else:
        wait_for_everyone()
        yield
        wait_for_everyone()


def _missing(folder: Path, count: int) -> Sequence[int]:
    """The numbers of the shards that are this process's and not yet in the folder."""
    return [number for number in own_share(range(count)) if not (folder / shard_name(number)).exists()]


def _copy(folder: Path, out: Path, count: int) -> None:
    """Copy a folder's shards, as the output is no other run's file.

    Raises:
        InputError: a shard is damaged, or the disk is full.
    """
    for number in range(count):
        shard = folder / shard_name(number)
        check_shard(shard)
        with atomic(out / shard.name) as path:
            shutil.copyfile(shard, path)


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table; equal tables are equal bytes.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    write_parquet(path, pa.Table.from_pandas(table, preserve_index=False))


def read_table(path: Path) -> pd.DataFrame:
    """Read a table.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error!s:.200}): run the command that writes it again") from None
