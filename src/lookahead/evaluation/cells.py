"""What is evaluated, as data: cells, the contrasts of the main ones, and the protocol that all of them share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lookahead.artifacts import digest, digest_paths
from lookahead.config import Checkpoints, Evaluate, Protocol, Sampling
from lookahead.errors import InputError
from lookahead.evaluation.contrasts import UNTRAINED, Contrast
from lookahead.evaluation.pictures import Plan
from lookahead.evaluation.samplers import kv_file
from lookahead.evaluation.scores import Row, models_of
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.portraits import Person

FULL = "full"  # the protocol's sampler
BASE, UNTUNED, NOISE_ONLY = "base", "adapter", "noise_only"
WITHOUT_KV, TUNED, STEERED = "tuned_without_kv", "tuned", "steered"
LABELS = {  # what people read, in the order of every table
    UNTUNED: "untuned",
    NOISE_ONLY: "noise loss only",
    WITHOUT_KV: "lookahead without KV",
    TUNED: "lookahead",
    STEERED: "lookahead, steered",
}
CONTRASTS = (
    Contrast("tuning", TUNED, UNTUNED),
    Contrast("gain", TUNED, NOISE_ONLY),
    Contrast("kv", TUNED, WITHOUT_KV),
    Contrast("steering", STEERED, TUNED),
)
TRAINED = (NOISE_ONLY, TUNED)  # those with an encoder of their own
HASH, STEERING = "hash", "steering"
INVENTED = "invented"  # where it is: why the people are not real
_INVENTED = "no portraits were given: the people are invented by the generator and were held out of the training"
_TRAIN = "train it first (`lookahead train`)"
_OTHER = "evaluate.encoders expects folders such as `lookahead export` and `lookahead convert` write"
Description = dict[str, object]


@dataclass(frozen=True)
class Cell:
    """An encoder, a sampler and a training seed.

    `encoder` is the folder that training wrote; None is the untuned adapter, and without an adapter the base model.
    `training_seed` is -1 where nothing was trained; `sampler` is the name of `sampling` in tables.
    """

    name: str
    encoder: Path | None
    training_seed: int
    sampler: str
    sampling: Sampling

    @property
    def columns(self) -> Row:
        """The cell's columns of the long table."""
        return {"cell": self.name, "sampler": self.sampler, "training_seed": self.training_seed}


def base_cell(sampling: Sampling) -> Cell:
    """The base model, which sees the prompt alone."""
    changes = {"adapter": False, "adapter_scale": 0.0, "use_kv": False, "steering": None}
    return Cell(BASE, None, UNTRAINED, FULL, sampling.model_copy(update=changes))


def main_cells(encoders: Mapping[str, Path], settings: Evaluate, training_seed: int) -> list[Cell]:
    """The cells of the main evaluation, the untuned first; `encoders` are the folders of those in TRAINED.

    The lookahead-tuned encoder without its keys and values, where it has any, and with lookahead guidance, where the
    settings have `steering`, are further cells, and so are the settings' own `encoders`.
    """
    others = {name: Path(folder) for name, folder in settings.encoders.items()}
    if taken := sorted({*others} & {BASE, *LABELS}):
        raise InputError(f"evaluate.encoders names {taken[0]!r}, which is a row already: choose another name")
    for folders, mend in ((encoders, _TRAIN), (others, _OTHER)):
        if missing := [folder for folder in folders.values() if not (folder / ADAPTER_FILE).is_file()]:
            raise InputError(f"{missing[0]} holds no encoder: {mend}")
    plain, tuned = settings.sampling, encoders[TUNED]
    cells = [(UNTUNED, None, plain), (NOISE_ONLY, encoders[NOISE_ONLY], plain)]
    if kv_file(tuned, plain) is not None:
        cells.append((WITHOUT_KV, tuned, plain.model_copy(update={"use_kv": False})))
    cells.append((TUNED, tuned, plain))
    if settings.steering is not None:
        cells.append((STEERED, tuned, plain.model_copy(update={"steering": settings.steering})))
    own = [
        Cell(name, encoder, UNTRAINED if encoder is None else training_seed, FULL, sampling)
        for name, encoder, sampling in cells
    ]
    return own + [Cell(name, folder, UNTRAINED, FULL, plain) for name, folder in others.items()]


def main_contrasts(settings: Evaluate) -> list[Contrast]:
    """The contrasts of the main cells, and of each further encoder with the tuned one."""
    return [*CONTRASTS, *(Contrast(name, name, TUNED) for name in settings.encoders)]


def describe(settings: Evaluate, checkpoints: Checkpoints, people: list[Person], plan: Plan) -> Description:
    """What decides the numbers besides the encoder, and its hash: equal hashes mean that they may be compared.

    People and photos, prompts, noise and sampler, and the models that score. Where files lie and how many pictures are
    drawn at once do not matter. The lookahead guidance of the cell `steered` is outside of the hash: like an encoder,
    it is what is compared.
    """
    by_content = {"splits", "prompts", "groups"}  # described by what they hold, not by their paths
    content: Description = {
        "people": [person.name for person in people],
        "references": digest_paths([person.reference for person in people]),
        "other_photos": digest_paths([photo for person in people for photo in person.others]),
        "prompts": list(plan.prompts.values()),
        "words": plan.words,
        "groups": groups(settings, plan.styles),
        "settings": settings.model_dump(mode="json", include=set(Protocol.model_fields) - by_content),
        "scorers": models_of(checkpoints),
    }
    steering = None if settings.steering is None else settings.steering.model_dump(mode="json")
    return content | {HASH: digest(content), STEERING: steering} | ({INVENTED: _INVENTED} if settings.invented else {})


def groups(settings: Protocol, styles: list[str]) -> dict[str, list[str]]:
    """The styles of each group of prompts; the plain one is the first of `styles`."""
    kinds = {"plain": styles[:1], "stylised": styles[1:]}
    return {name: kinds[kind] for name, kind in settings.groups.items()}


def differences(one: Mapping[str, object], other: Mapping[str, object], above: str = "") -> list[str]:
    """The dotted names in which two protocols differ, the hash and what it leaves out aside."""
    found: list[str] = []
    for name in sorted({*one, *other} - {HASH, STEERING, INVENTED}):
        left, right = one.get(name), other.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += differences(left, right, f"{above}{name}.")
        elif left != right:
            found.append(f"{above}{name}")
    return found
