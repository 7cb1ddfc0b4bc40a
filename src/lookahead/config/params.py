"""The strict, typed mirror of `params.yaml`: every number lives there, none here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError, model_validator

from lookahead.config.checkpoints import Checkpoints
from lookahead.config.dataset import Features, Generate, Photos
from lookahead.config.fields import Count, Positive, Section, Seed, faults
from lookahead.config.personalize import Personalize
from lookahead.config.protocol import read_evaluate, read_protocol
from lookahead.config.stages import EvaluateStage
from lookahead.config.studies import Studies
from lookahead.config.train import Train
from lookahead.errors import InputError


class World(Section):
    """One world's checkpoints and its stages' numbers."""

    checkpoints: Checkpoints
    generate: Generate
    photos: Photos
    features: Features
    train: Train
    evaluate: EvaluateStage
    personalize: Personalize

    def settings(self, section: str) -> object:
        """A section as plain data; that of the evaluation with the protocol that it names, and its own portraits only.

        That of `generate` names the portraits of all splits: nobody of them may be drawn.

        Raises:
            InputError: the protocol is missing or wrong.
        """
        own: Section = getattr(self, section)
        if isinstance(own, Generate):
            splits = read_protocol(self.evaluate.protocol).splits
            return own.model_dump(mode="json") | {"portraits": splits.model_dump(mode="json")}
        if not isinstance(own, EvaluateStage):
            return own.model_dump(mode="json")
        settings = read_evaluate(own)
        return settings.model_dump(mode="json", exclude={"splits"}) | {"portraits": settings.portraits}


class Tracking(Section):
    """Where runs are logged; switching it off changes no output."""

    enabled: bool
    uri: str
    experiment: str


class Part(Section):
    """How one part of the miniature is trained."""

    steps: Count
    batch: Count
    learning_rate: Positive
    seed: Seed


class Miniature(Section):
    """The training of the miniature's parts and the sizes of its portrait sets."""

    pool_shards: Count
    vae_shards: Count
    trajectories: Count
    parts: dict[str, Part]
    search_people: Count
    validation_people: Count
    test_people: Count


class Params(Section):
    """The whole of `params.yaml`."""

    world: str
    own_photos: Annotated[str, Field(min_length=1)]
    tracking: Tracking
    worlds: dict[str, World]
    studies: Studies
    miniature: Miniature

    @model_validator(mode="after")
    def _known_world(self) -> Params:
        if self.world not in self.worlds:
            raise ValueError(f"world is {self.world!r}; params.yaml has {sorted(self.worlds)}")
        return self

    @property
    def active(self) -> World:
        """The world that `world` names."""
        return self.worlds[self.world]

    def of(self, name: str | None) -> World:
        """The world of this name; None is the active one.

        Raises:
            InputError: there is none.
        """
        if name is not None and name not in self.worlds:
            raise InputError(f"there is no world {name!r}: params.yaml has {', '.join(sorted(self.worlds))}")
        return self.active if name is None else self.worlds[name]


def parse_params(tree: Mapping[str, object]) -> Params:
    """Check a parameter tree.

    Raises:
        InputError: a key is unknown or missing, or a value is out of range; the message names each one.
    """
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        raise InputError("params.yaml is not valid:\n" + faults(error, "params.yaml")) from None


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check `params.yaml`.

    Raises:
        InputError: the file is missing, is not YAML, or holds a bad parameter.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run from the repository's root") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path} holds {type(tree).__name__}, not a mapping of parameters")
    return parse_params(tree)
