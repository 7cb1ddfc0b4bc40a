"""The methods that an evaluation compares, and the comparisons, as data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from lookahead.config import Steering
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.models.kv_encoder import KV_FILE


@dataclass(frozen=True)
class Method:
    """How people read a method: its name, and its colour in figures."""

    name: str
    colour: str


@dataclass(frozen=True)
class Comparison:
    """A paired difference, `method` minus `baseline`: its name and its colour in figures."""

    name: str
    colour: str
    method: str
    baseline: str


@dataclass(frozen=True)
class Encoder:
    """What a method draws with: a trained encoder's folder (None: the untuned adapter), whether its keys and values are
    used, if it has any, and lookahead guidance, if any."""

    folder: Path | None
    keys_values: bool = True
    steering: Steering | None = None

    @property
    def spread(self) -> bool:
        """Whether further noises are drawn: not of steered pictures, whose steps cost several plain ones."""
        return self.steering is None


BASE = "base"  # the base model without any adapter, which others are compared with
UNTUNED, NOISE_ONLY, WITHOUT_KV, TUNED, STEERED = "adapter", "noise_only", "tuned_without_kv", "tuned", "steered"
VARIANTS = (UNTUNED, NOISE_ONLY, TUNED)  # those with an encoder of their own
METHODS = {  # by key of `metrics.json`, in the order of every table
    UNTUNED: Method("untuned", "#8d939c"),
    NOISE_ONLY: Method("noise loss only", "#3f7fbf"),
    WITHOUT_KV: Method("lookahead without KV", "#e0a13b"),
    TUNED: Method("lookahead", "#d4552a"),
    STEERED: Method("lookahead, steered", "#7a2e6b"),
}
COMPARISONS = {
    "difference": Comparison("lookahead − untuned", "#8d939c", TUNED, UNTUNED),
    "gain": Comparison("lookahead − noise loss only", "#d4552a", TUNED, NOISE_ONLY),
    "kv_gain": Comparison("lookahead − lookahead without KV", "#e0a13b", TUNED, WITHOUT_KV),
    "steering_gain": Comparison("lookahead, steered − lookahead", "#7a2e6b", STEERED, TUNED),
}


def encoders_of(variants: Mapping[str, Path | None], steering: Steering | None) -> dict[str, Encoder]:
    """Every method's encoder; the tuned one without its keys and values, where it has any, and steered are further
    methods.

    Args:
        variants: encoder folder by name (VARIANTS); None is the world's untuned adapter.
        steering: lookahead guidance of the steered method; None leaves it out.

    Raises:
        InputError: other variants are given, or an encoder does not exist.
    """
    if set(variants) != set(VARIANTS):
        raise InputError(f"the evaluation compares {', '.join(VARIANTS)}; it was given {', '.join(sorted(variants))}")
    for name, path in variants.items():
        if path is not None and not (path / ADAPTER_FILE).is_file():
            raise InputError(f"{path}, the encoder of {name}, does not exist: train it first (`lookahead train`)")
    encoders = {name: Encoder(path) for name, path in variants.items()}
    tuned = variants[TUNED]
    if tuned is not None and (tuned / KV_FILE).is_file():
        encoders[WITHOUT_KV] = Encoder(tuned, keys_values=False)
    if steering is not None:
        encoders[STEERED] = Encoder(tuned, steering=steering)
    return {name: encoders[name] for name in present(encoders)}


def present(names: Collection[str]) -> list[str]:
    """The methods among some names, in the order of METHODS."""
    return [method for method in METHODS if method in names]


def comparable(names: Collection[str]) -> dict[str, Comparison]:
    """The comparisons both of whose methods are among some names."""
    return {key: one for key, one in COMPARISONS.items() if one.method in names and one.baseline in names}
