"""Scores of an encoder for the search: identity by recogniser `select` and prompt alignment, person by person."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lookahead.config import Checkpoints, Evaluate, with_overrides
from lookahead.evaluation.panel import Panel, judged, open_panel, open_sampler
from lookahead.evaluation.pictures import draw_pictures
from lookahead.world import Pipeline, open_pipeline

Scores = dict[str, list[float]]  # by metric, one number a person
METRICS = ("identity", "prompt")
_COLUMNS = {"identity": "identity_select", "prompt": "prompt_right"}  # the report's recogniser is left to `evaluate`
_DIGITS = 6  # of what the storage keeps of a person


@dataclass(frozen=True)
class Scorer:
    """The people, prompts and noise on which every encoder is scored (common random numbers), opened once."""

    pipe: Pipeline
    panel: Panel

    def score(self, encoder: Path | None, folder: Path, people: int) -> Scores:
        """Draw the first people with an encoder's folder, or the untuned adapter, and score them; `folder` is left empty.

        Raises:
            InputError: a file of the encoder is damaged or does not fit.
        """
        shots = [shot for shot in self.panel.plan.shots if shot.person < people]
        fewer = replace(self.panel, plan=replace(self.panel.plan, shots=shots))
        sampler = open_sampler(fewer.checkpoints, self.pipe, fewer.protocol, encoder)
        draw_pictures(sampler, fewer.plan, fewer.conditions, fewer.protocol.batch, folder, folder.name)
        means = judged(fewer, folder.name, folder).groupby("person")[list(_COLUMNS.values())].mean().round(_DIGITS)
        shutil.rmtree(folder)
        return {name: means[column].tolist() for name, column in _COLUMNS.items()}


def settings_of(settings: Evaluate, split: str, seed: int, **changes: object) -> Evaluate:
    """The world's evaluation on the people of another split; nothing is steered."""
    return with_overrides(settings, {"split": split, "seed": seed, "seeds": 1, "steering": None, **changes})


def open_scorer(checkpoints: Checkpoints, settings: Evaluate) -> Scorer:
    """Open whatever scoring needs besides an encoder.

    Raises:
        InputError: portraits, prompts or a checkpoint are missing or wrong, or a reference photo shows no face.
    """
    pipe = open_pipeline(checkpoints)
    return Scorer(pipe, open_panel(checkpoints, settings, pipe))


def mean_scores(scores: Scores) -> dict[str, float]:
    """Means over people."""
    return {name: float(np.mean(values)) for name, values in scores.items()}


def as_table(scores: Mapping[tuple[int, int], Scores]) -> pd.DataFrame:
    """Scores by setting and training seed as the long table of `evaluation.contrasts`, one row a person."""
    rows = [
        {"cell": str(setting), "sampler": "full", "training_seed": seed, "person": person}
        | {name: values[person] for name, values in own.items()}
        for (setting, seed), own in scores.items()
        for person in range(len(own["identity"]))
    ]
    return pd.DataFrame(rows)
