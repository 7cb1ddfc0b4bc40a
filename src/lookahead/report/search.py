"""The report of a search: its front as a figure, and one self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class SearchFindings:
    """What the page of a search shows. Cells of the frames are numbers of trials, as text.

    Args:
        title: the study's name and its world.
        description: how trials and confirmation were evaluated: people, split, steps, seeds.
        rule: how a setting comes to be recommended.
        verdict: what is recommended, in one sentence.
        trials: one row a trial: number, state, one column a parameter, identity, prompt, front (bool), reason.
        parameters: the names of the parameters' columns.
        searched: rows of `contrasts.summary` of the trials' evaluations; metrics are identity and prompt.
        confirmed: the same of the confirmation.
        contrasts: rows of `contrasts.contrasts` of the confirmation against params.yaml's own setting.
        default: the number of the trial with params.yaml's own setting.
        recommended: the number of the recommended trial.
        changes: what adopting it changes in params.yaml, by dotted name.
    """

    title: str
    description: str
    rule: str
    verdict: str
    trials: pd.DataFrame
    parameters: Sequence[str]
    searched: pd.DataFrame
    confirmed: pd.DataFrame
    contrasts: pd.DataFrame
    default: int
    recommended: int
    changes: Mapping[str, object]


def save_front(findings: SearchFindings, untuned: tuple[float, float], prompt_loss: float, path: Path) -> None:
    """Draw every trial's identity against prompt alignment, with the front and the untuned adapter.

    Args:
        findings: trials, and which are recommended and params.yaml's own.
        untuned: identity and prompt alignment of the untuned adapter.
        prompt_loss: the loss of prompt alignment that is tolerated.
        path: the PNG file to write.
    """
    raise NotImplementedError


def write_search_report(findings: SearchFindings, figures: Mapping[str, Path], path: Path) -> None:
    """Write the page; `figures` are PNG files by their titles, the front first.

    Figures of `optuna.visualization.matplotlib` are saved by `figures.save_axes`, so that equal ones are equal bytes.
    """
    raise NotImplementedError
