"""Studies: the cells that `params.yaml` lists below `studies.cells`, and their tables.

Every cell and training seed is a stage of its own (`stages/cell.py`). It draws and scores the pictures and writes them
to `<study>/<cell>/<seed>/`; the stage `table` (`stages/study.py`) reads all of them.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lookahead.config import Evaluate, Study
from lookahead.errors import InputError
from lookahead.evaluation.cells import Cell
from lookahead.evaluation.contrasts import UNTRAINED, Contrast, contrasts, summary
from lookahead.evaluation.evaluate import FURTHER, HEADLINE, PER_IMAGE, PICTURES, PRIMARY, rights
from lookahead.evaluation.evaluator import read_table


def study_cells(study: Study, name: str, encoder: Path | None, training_seed: int, settings: Evaluate) -> list[Cell]:
    """One cell of `params.yaml` with each of the study's samplers; `settings` are `Study.evaluation`.

    `encoder` is the folder that a training wrote, None for the untuned adapter and the base model.
    """
    seed = UNTRAINED if encoder is None else training_seed
    return [Cell(name, encoder, seed, sampler, study.sampling(name, sampler, settings)) for sampler in study.samplers]


def cell_folders(study: Study, folder: Path | str) -> list[Path]:
    """The folders `<cell>/<seed>` that the table reads: one a seed of a cell that is trained.

    A cell without a training is the same for every seed: the first one is enough.
    """
    seeds = {name: study.seeds if cell.trained else study.seeds[:1] for name, cell in study.cells.items()}
    return [Path(folder, name, str(seed)) for name in study.cells for seed in seeds[name]]


def read_study(study: Study, folder: Path) -> pd.DataFrame:
    """The long table of all cells: a row a picture."""
    tables = []
    for cell in cell_folders(study, folder):
        tables.append(read_table(cell / PER_IMAGE))
        if tables[-1]["person"].nunique() != study.people:
            raise InputError(f"{cell / PER_IMAGE} is of another study than params.yaml describes: run its stage again")
    return pd.concat(tables, ignore_index=True)


def picture_folders(study: Study, folder: Path) -> dict[str, Path]:
    """The pictures of each cell with the first training seed, as `report.pages.make_album` reads them."""
    return {name: folder / name / str(study.seeds[0]) / PICTURES / name for name in study.cells}


def study_tables(study: Study, table: pd.DataFrame, settings: Evaluate) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The means of every cell, and its contrasts with the cells that it names in `against`."""
    pairs = [Contrast(f"{name} - {other}", name, other) for name, cell in study.cells.items() for other in cell.against]
    metrics = HEADLINE + rights(table) + FURTHER
    others = [metric for metric in metrics if metric not in PRIMARY]  # which no margin is given for
    parts = [contrasts(table, pairs, PRIMARY, margin=settings.margin), contrasts(table, pairs, others)]
    return summary(table, metrics), pd.concat(parts, ignore_index=True)
