"""Scores of an encoder for the search: identity by recogniser `select` and prompt alignment, person by person."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lookahead.config import Evaluate, with_overrides
from lookahead.evaluation.cells import FULL, Cell
from lookahead.evaluation.contrasts import UNTRAINED
from lookahead.evaluation.evaluator import Evaluator

Scores = dict[str, list[float]]  # by metric, one number a person
METRICS = ("identity", "prompt")
_COLUMNS = {"identity_select": "identity", "prompt": "prompt"}  # the report's recogniser is left to `evaluate`
_DIGITS = 6  # of what the storage keeps of a person


def settings_of(settings: Evaluate, split: str, seed: int, **changes: object) -> Evaluate:
    """The world's evaluation on the people of another split; nothing is steered."""
    return with_overrides(settings, {"split": split, "seed": seed, "seeds": 1, "steering": None, **changes})


def score(evaluator: Evaluator, encoder: Path | None, folder: Path, people: int | None = None) -> Scores:
    """Draw the first people with an encoder's folder, or the untuned adapter, and score them; `folder` is removed."""
    cell = Cell(folder.name, "", encoder, UNTRAINED, FULL, evaluator.settings.sampling)
    table = evaluator.run([cell], None, folder, people)
    shutil.rmtree(folder)
    means = table.groupby("person")[list(_COLUMNS)].mean().round(_DIGITS).rename(columns=_COLUMNS)
    return {name: means[name].tolist() for name in METRICS}


def mean_scores(scores: Scores) -> dict[str, float]:
    """Means over people."""
    return {name: float(np.mean(values)) for name, values in scores.items()}


def as_table(scores: Mapping[tuple[int, int], Scores]) -> pd.DataFrame:
    """Scores by setting and training seed as the long table of `evaluation.contrasts`, one row a person."""
    frames = [
        pd.DataFrame({"cell": str(setting), "sampler": FULL, "training_seed": seed, **own}).rename_axis("person")
        for (setting, seed), own in scores.items()
    ]
    return pd.concat(frames).reset_index()
