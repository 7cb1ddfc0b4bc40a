"""Drawing for people: the numbers that `lookahead personalize` and the pipeline start from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import ValidationError

from lookahead.config.fields import Count, Fraction, NotNegative, Section
from lookahead.config.stages import KVGuidance, Steering
from lookahead.errors import InputError


class Fast(Section):
    """Few steps with the fast child: its scheduler, steps and guidance weight."""

    scheduler: str
    steps: Count
    guidance: NotNegative


class Personalize(Section):
    """How pictures of a person are drawn from portraits and prompts.

    `kv` uses the KV-encoder where the encoder has one, which is told `portrait_prompt` of the portrait; `combine` is
    what several portraits become; `smallest_face` is a face's least height, as a share of its picture's shorter side.
    """

    scheduler: str
    steps: Count
    guidance: NotNegative
    kv: bool
    kv_guidance: KVGuidance
    adapter_scale: NotNegative
    combine: Literal["average", "concatenate"]
    portrait_prompt: str
    fast: Fast
    steering: Steering
    batch: Count
    smallest_face: Fraction

    def having(self, wishes: Mapping[str, object]) -> Personalize:
        """These numbers with other ones at dotted paths, such as "steering.strength"; None leaves one as it is.

        Raises:
            InputError: a value is out of range, or there is no such path.
        """
        tree = self.model_dump()
        for path, value in wishes.items():
            if value is not None:
                _put(tree, path, value)
        try:
            return Personalize.model_validate(tree)
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']} (got {e['input']!r:.80})" for e in error.errors()]
            raise InputError("this cannot be drawn: " + "; ".join(faults)) from None


def _put(tree: dict[str, object], path: str, value: object) -> None:
    *parents, name = path.split(".")
    section: object = tree
    for parent in parents:
        section = section.get(parent) if isinstance(section, dict) else None
    if not isinstance(section, dict) or name not in section:
        raise InputError(f"personalize.{path} is no parameter: see `personalize` in params.yaml")
    section[name] = value
