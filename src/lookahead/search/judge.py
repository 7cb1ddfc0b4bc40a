"""Judging an encoder for the search: identity by recogniser `select`, and prompt alignment, person by person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lookahead.evaluation.metrics import person_means
from lookahead.evaluation.panel import Panel, judged, open_sampler
from lookahead.evaluation.pictures import draw_pictures
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


def judge(panel: Panel, encoder: Path | None, pictures: Path, people: int) -> Scores:
    """Draw the first people with an encoder, or with the untuned adapter, and judge the pictures.

    Raises:
        InputError: a file of the encoder is damaged or does not fit.
    """
    shots = [shot for shot in panel.plan.shots if shot.person < people]
    fewer = replace(panel, plan=replace(panel.plan, shots=shots))
    sampler = open_sampler(panel.checkpoints, open_pipeline(panel.checkpoints), panel.protocol, encoder)
    draw_pictures(sampler, fewer.plan, fewer.conditions, fewer.protocol.batch, pictures, pictures.name)
    means = person_means(judged(fewer, pictures.name, pictures), (IDENTITY, PROMPT))
    return Scores(means[IDENTITY].round(_DIGITS).tolist(), means[PROMPT].round(_DIGITS).tolist())
