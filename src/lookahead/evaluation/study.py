"""Studies: lists of cells in params.yaml, drawn and scored one by one, and gathered into one table with contrasts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from lookahead.config import Evaluate, Study
from lookahead.errors import InputError
from lookahead.evaluation.cells import Cell
from lookahead.evaluation.contrasts import UNTRAINED, Contrast, contrasts, summary
from lookahead.evaluation.evaluate import BOTH, FURTHER, HEADLINE, PER_IMAGE
from lookahead.evaluation.evaluator import read_table

PICTURES = "pictures"


def study_cells(study: Study, name: str, encoder: Path | None, training_seed: int, settings: Evaluate) -> list[Cell]:
    """One cell of `params.yaml` with each of the study's samplers.

    Args:
        study: the study.
        name: the cell's.
        encoder: the folder that a training wrote; None for the untuned adapter and the base model.
        training_seed: the training's, where there is one.
        settings: the study's evaluation (`Study.evaluation`).

    Raises:
        InputError: a change of the sampling names no parameter, or its value is out of range.
    """
    seed = UNTRAINED if encoder is None else training_seed
    label = study.cells[name].label
    return [
        Cell(name, label, encoder, seed, sampler, study.sampling(name, sampler, settings)) for sampler in study.samplers
    ]


def seeds_of(study: Study, name: str) -> list[int]:
    """The seeds whose runs of a cell count: all of its own trainings, else the first, as the others are the same."""
    return study.seeds if study.cells[name].trained else study.seeds[:1]


def read_study(study: Study, folder: Path) -> pd.DataFrame:
    """The long table of a study, from one folder `<cell>/<seed>` a cell.

    Raises:
        InputError: a cell is missing, damaged or of another number of people.
    """
    tables = []
    for name in study.cells:
        for seed in seeds_of(study, name):
            path = folder / name / str(seed) / PER_IMAGE
            table = read_table(path)
            if table["person"].nunique() != study.people:
                raise InputError(f"{path} is of another study than params.yaml describes: run its stage `cell` again")
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def contrasts_of(study: Study) -> list[Contrast]:
    """Every cell against those that it names."""
    return [Contrast(f"{name} - {other}", name, other) for name, cell in study.cells.items() for other in cell.against]


def study_tables(study: Study, table: pd.DataFrame, settings: Evaluate) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The means and the contrasts; Holm corrects identity and prompt alignment as one table, the rest as another."""
    rest, pairs = [metric for metric in HEADLINE + FURTHER if metric not in BOTH], contrasts_of(study)
    changes = [contrasts(table, pairs, BOTH, margin=settings.margin), contrasts(table, pairs, rest)]
    return summary(table, HEADLINE + FURTHER), pd.concat(changes, ignore_index=True)


@contextmanager
def gathered_pictures(study: Study, folder: Path) -> Iterator[Path]:
    """A folder with the pictures of all cells, as `Cell.folder` names them; it is removed afterwards."""
    with TemporaryDirectory() as place:
        for name in study.cells:
            for seed in seeds_of(study, name):
                for drawn in (folder / name / str(seed) / PICTURES / name).glob("*/*"):
                    link = Path(place, name, *drawn.parts[-2:])
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(drawn.resolve(), target_is_directory=True)
        yield Path(place)
