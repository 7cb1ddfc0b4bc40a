"""Evaluations side by side: paired differences against the first, and the same person, prompt and noise in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lookahead.artifacts import read_json
from lookahead.errors import InputError
from lookahead.evaluation.album import ALBUM, Album, Place, read_album
from lookahead.evaluation.metrics import group_of
from lookahead.evaluation.protocol import HASH, differences
from lookahead.evaluation.statistics import Array, Interval, by_person, paired_interval
from lookahead.report.pages import no_difference

FILES = ("protocol.json", "per_image.parquet", ALBUM)  # what is needed of an evaluation
FIGURES = {"identity": "identity", "prompt": "prompt_right", "detection": "detected"}
ALL = "all"


@dataclass(frozen=True)
class Run:
    """One method of one evaluation: its name in the comparison, protocol, one row a picture, and shown pictures."""

    label: str
    method: str
    protocol: Mapping[str, object]
    table: pd.DataFrame
    album: Album


@dataclass(frozen=True)
class Difference:
    """One figure of one run against the first run's, among a group of prompts."""

    label: str
    group: str
    figure: str
    mean: float
    baseline: float
    change: Interval

    @property
    def verdict(self) -> str:
        """Whether the 95 % interval excludes 0, and on which side."""
        _, low, high = self.change.measured()
        if no_difference(low, high):
            return "no difference"
        return "higher" if low > 0 else "lower"


def read_run(label: str, folder: Path, method: str) -> Run:
    """Read one method of an evaluation's output.

    Raises:
        InputError: a file is missing or damaged, or the evaluation has no such method.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise InputError(f"{folder} is no evaluation: it has no {name}; run `lookahead evaluate` again")
    try:
        every = pd.read_parquet(folder / "per_image.parquet")
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / 'per_image.parquet'} is damaged ({error!s:.120}): evaluate again") from None
    known = sorted(every["method"].unique())
    if method not in known:
        raise InputError(f"{folder} has no method {method!r}: it has {', '.join(known)}")
    table = every[every["method"] == method]
    return Run(label, method, read_json(folder / "protocol.json"), table, read_album(folder / ALBUM))


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that were not evaluated alike.

    Raises:
        InputError: two protocols differ; the keys are named.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.protocol.get(HASH) != first.protocol.get(HASH):
            parts = ", ".join(differences(first.protocol, run.protocol)) or HASH
            raise InputError(
                f"{first.label} and {run.label} were evaluated by different protocols, which differ in {parts}: "
                "evaluate both by the same one"
            )


def compare(runs: Sequence[Run], resamples: int) -> list[Difference]:
    """Every run against the first, person by person: over all prompts and in each group of them.

    Args:
        runs: at least two, evaluated alike.
        resamples: of the bootstrap over people; its seed is the protocol's, as in the evaluation.

    Raises:
        InputError: the protocols differ.
    """
    check_comparable(runs)
    first = runs[0]
    seed = first.protocol["settings"]["seed"]  # type: ignore[index]
    return [
        _difference(run, group, figure, _means(run, group, column), _means(first, group, column), resamples, seed)
        for run in runs[1:]
        for group in (ALL, *_groups(first))
        for figure, column in FIGURES.items()
    ]


def _groups(run: Run) -> Mapping[str, list[str]]:
    groups: Mapping[str, list[str]] = run.protocol["groups"]  # type: ignore[assignment]
    return groups


def _means(run: Run, group: str, column: str) -> Array:
    rows = run.table if group == ALL else run.table[group_of(run.table["style"], _groups(run)) == group]
    return by_person(rows["person"].to_numpy(np.int64), rows[column].to_numpy(np.float64))


def _difference(
    run: Run, group: str, figure: str, values: Array, baseline: Array, resamples: int, seed: int
) -> Difference:
    change = paired_interval(values, baseline, resamples, seed)
    return Difference(run.label, group, figure, float(values.mean()), float(baseline.mean()), change)


def places(runs: Sequence[Run]) -> list[Place]:
    """The pictures that every run shows, person by person in the order of the first run's."""
    return [place for place in runs[0].album[runs[0].method] if all(place in run.album[run.method] for run in runs[1:])]
