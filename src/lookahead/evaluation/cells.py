"""Cells, what an evaluation draws and scores, and those of the main evaluation with their contrasts, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lookahead.config import Evaluate, Sampling
from lookahead.errors import InputError
from lookahead.evaluation.contrasts import UNTRAINED, Contrast
from lookahead.evaluation.drawing.samplers import check_encoder, kv_file

FULL = "full"  # the protocol's sampler
BASE, UNTUNED, NOISE_ONLY, WITHOUT_KV, TUNED, STEERED = (
    "base",
    "adapter",
    "noise_only",
    "tuned_without_kv",
    "tuned",
    "steered",
)
LABELS = {  # what people read, in the order of every table
    UNTUNED: "untuned",
    NOISE_ONLY: "noise loss only",
    WITHOUT_KV: "lookahead without KV",
    TUNED: "lookahead",
    STEERED: "lookahead, steered",
}
CONTRASTS = (
    Contrast("difference", TUNED, UNTUNED),
    Contrast("gain", TUNED, NOISE_ONLY),
    Contrast("kv_gain", TUNED, WITHOUT_KV),
    Contrast("steering_gain", STEERED, TUNED),
)
TRAINED = (NOISE_ONLY, TUNED)  # those with an encoder of their own


@dataclass(frozen=True)
class Cell:
    """An encoder, a sampler and a training seed.

    `encoder` is the folder that training wrote; None is the untuned adapter, and without an adapter the base model.
    `training_seed` is -1 where nothing was trained; `sampler` is the name of `sampling` in tables.
    """

    name: str
    label: str
    encoder: Path | None
    training_seed: int
    sampler: str
    sampling: Sampling

    @property
    def folder(self) -> Path:
        """Where its pictures lie below an output."""
        return Path(self.name, self.sampler, str(self.training_seed))


def base_cell(sampling: Sampling) -> Cell:
    """The base model, which sees the prompt alone."""
    changes = {"adapter": False, "adapter_scale": 0.0, "use_kv": False, "steering": None}
    return Cell(BASE, "base model", None, UNTRAINED, FULL, sampling.model_copy(update=changes))


def main_cells(encoders: Mapping[str, Path], settings: Evaluate, training_seed: int) -> list[Cell]:
    """The cells of the main evaluation, in the order of LABELS.

    The lookahead-tuned encoder without its keys and values, where it has any, and with lookahead guidance, where the
    settings have `steering`, are further cells.

    Args:
        encoders: the folders of those in TRAINED.
        settings: the evaluation.
        training_seed: of the encoders.

    Raises:
        InputError: others are given, or an encoder does not exist.
    """
    if set(encoders) != set(TRAINED):
        raise InputError(
            f"the evaluation needs the encoders {', '.join(TRAINED)}; it got {', '.join(sorted(encoders))}"
        )
    for encoder in encoders.values():
        check_encoder(encoder)
    plain, tuned = settings.sampling, encoders[TUNED]
    samplings = dict.fromkeys((UNTUNED, NOISE_ONLY, TUNED), plain)
    if kv_file(tuned, plain) is not None:
        samplings[WITHOUT_KV] = plain.model_copy(update={"use_kv": False})
    if settings.steering is not None:
        samplings[STEERED] = plain.model_copy(update={"steering": settings.steering})
    return [
        Cell(name, label, None, UNTRAINED, FULL, samplings[name])
        if name == UNTUNED
        else Cell(name, label, encoders.get(name, tuned), training_seed, FULL, samplings[name])
        for name, label in LABELS.items()
        if name in samplings
    ]
