"""What an evaluation was: `protocol.json`, whose hash says which results may be compared."""

from __future__ import annotations

from collections.abc import Mapping

from lookahead.artifacts import digest, digest_paths
from lookahead.config import Checkpoints, Evaluate, Protocol
from lookahead.evaluation.drawing.plan import Plan
from lookahead.evaluation.scoring.scores import models_of
from lookahead.portraits import Person

HASH, STEERING = "hash", "steering"
_ELSEWHERE = {"splits", "prompts", "groups"}  # described by what they hold, not by their paths
Description = dict[str, object]


def describe(settings: Evaluate, checkpoints: Checkpoints, people: list[Person], plan: Plan) -> Description:
    """What decides the numbers besides the encoder, and its hash: equal hashes mean that they may be compared.

    People and photos, prompts, noise and sampler, and the models that score. Where files lie and how many pictures are
    drawn at once do not matter. The lookahead guidance of the cell `steered` is outside of the hash: like an encoder,
    it is what is compared.
    """
    content: Description = {
        "people": [person.name for person in people],
        "references": digest_paths([person.reference for person in people]),
        "other_photos": digest_paths([photo for person in people for photo in person.others]),
        "prompts": plan.prompts,
        "styles": plan.styles,
        "scenes": plan.scenes,
        "groups": groups(settings, plan.styles),
        "settings": settings.model_dump(mode="json", include=set(Protocol.model_fields) - _ELSEWHERE),
        "scorers": models_of(checkpoints),
    }
    steering = None if settings.steering is None else settings.steering.model_dump(mode="json")
    return content | {HASH: digest(content), STEERING: steering}


def groups(settings: Protocol, styles: list[str]) -> dict[str, list[str]]:
    """The styles of each group of prompts; the plain one is the first of `styles`."""
    kinds = {"plain": styles[:1], "stylised": styles[1:]}
    return {name: kinds[kind] for name, kind in settings.groups.items()}


def differences(one: Mapping[str, object], other: Mapping[str, object], above: str = "") -> list[str]:
    """The dotted names in which two protocols differ, the hash and what it leaves out aside."""
    found: list[str] = []
    for name in sorted({*one, *other} - {HASH, STEERING}):
        left, right = one.get(name), other.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += differences(left, right, f"{above}{name}.")
        elif left != right:
            found.append(f"{above}{name}")
    return found
