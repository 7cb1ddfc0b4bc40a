"""Judging an encoder for the search: identity by recogniser `select`, and prompt alignment, person by person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lookahead.config import Checkpoints, Evaluate
from lookahead.data.prompts import read_prompts
from lookahead.evaluation.evaluate import encode_conditions, open_judges, open_sampler
from lookahead.evaluation.measure import Judges, measure
from lookahead.evaluation.metrics import person_means
from lookahead.evaluation.pictures import Conditions, draw_pictures, read_pictures
from lookahead.evaluation.plan import Plan, make_plan
from lookahead.evaluation.portraits import read_people
from lookahead.world import open_pipeline

IDENTITY, PROMPT = "identity_select", "prompt"
_DIGITS = 6  # of what the storage keeps of a person


@dataclass(frozen=True)
class Scores:
    """One number a person: identity (P,), a missing face counting 0, and the share of prompts followed (P,)."""

    identity: Sequence[float]
    prompt: Sequence[float]

    def means(self) -> tuple[float, float]:
        """Identity and prompt alignment."""
        return float(np.mean(self.identity)), float(np.mean(self.prompt))


@dataclass(frozen=True)
class Panel:
    """People, prompts, judges and conditions, opened once: the same for every encoder."""

    checkpoints: Checkpoints
    protocol: Evaluate
    plan: Plan
    judges: Judges
    conditions: Conditions


def open_panel(checkpoints: Checkpoints, protocol: Evaluate) -> Panel:
    """Open whatever judging needs besides an encoder.

    Raises:
        InputError: portraits, prompts or a checkpoint are missing or wrong, or a reference photo shows no face.
    """
    people = read_people(Path(protocol.portraits), protocol.people)
    plan = make_plan(read_prompts(protocol.prompts), protocol)
    judges = open_judges(checkpoints, people, plan)
    conditions = encode_conditions(checkpoints, open_pipeline(checkpoints), people, plan)
    return Panel(checkpoints, protocol, plan, judges, conditions)


def judge(panel: Panel, encoder: Path | None, pictures: Path, people: int) -> Scores:
    """Draw the first people with an encoder, or with the untuned adapter, and judge the pictures.

    Raises:
        InputError: a file of the encoder is damaged or does not fit.
    """
    protocol, checkpoints = panel.protocol, panel.checkpoints
    shots = [shot for shot in panel.plan.shots if shot.person < people]
    plan = Plan(panel.plan.styles, panel.plan.scenes, panel.plan.prompts, shots)
    sampler = open_sampler(checkpoints, open_pipeline(checkpoints), protocol, encoder)
    draw_pictures(sampler, plan, panel.conditions, protocol.batch, pictures, pictures.name)
    rows = pd.DataFrame(list(measure(pictures.name, plan, read_pictures(pictures), panel.judges, protocol.batch)))
    means = person_means(rows, (IDENTITY, PROMPT))
    return Scores(means[IDENTITY].round(_DIGITS).tolist(), means[PROMPT].round(_DIGITS).tolist())
