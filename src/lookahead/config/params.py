"""The strict, typed mirror of `params.yaml`: every number lives there, none here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from lookahead.config.checkpoints import Checkpoints
from lookahead.config.evaluation import Evaluate, EvaluateStage, Personalize, read_protocol
from lookahead.config.fields import Section, checked, merged, read_tree
from lookahead.config.studies import Studies
from lookahead.config.train import Features, Generate, Photos, Train
from lookahead.errors import InputError


class World(Section):
    """One world's checkpoints and its stages' numbers; its protocol is the file `protocols/<name>.yaml`."""

    name: str
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
        """
        own: Section = getattr(self, section)
        if section == "evaluate":
            evaluation = self.evaluation()
            return evaluation.model_dump(mode="json", exclude={"splits"}) | {"portraits": evaluation.portraits}
        portraits = {"portraits": self.evaluation().splits.model_dump(mode="json")} if section == "generate" else {}
        return own.model_dump(mode="json") | portraits

    def evaluation(self) -> Evaluate:
        """The protocol, and how the stage `evaluate` carries it out."""
        protocol = read_protocol(Path("protocols") / f"{self.name}.yaml")
        return Evaluate.model_validate(protocol.model_dump() | self.evaluate.model_dump())


class Tracking(Section):
    """Where runs are logged; switching it off changes no output."""

    enabled: bool
    uri: str
    experiment: str


class Params(Section):
    """The whole of `params.yaml`."""

    world: str
    own_photos: Annotated[str, Field(min_length=1)]
    tracking: Tracking
    worlds: dict[str, World]
    studies: Studies

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
        """The world of this name; None is the active one."""
        if name is not None and name not in self.worlds:
            raise InputError(f"there is no world {name!r}: params.yaml has {', '.join(sorted(self.worlds))}")
        return self.active if name is None else self.worlds[name]


def parse_params(tree: Mapping[str, object]) -> Params:
    """Check a parameter tree; each world is its own values over those of `defaults`."""
    rest = dict(tree)
    defaults, worlds = rest.pop("defaults", {}), rest.get("worlds")
    if isinstance(defaults, Mapping) and isinstance(worlds, Mapping):
        _check_sections(worlds)
        rest["worlds"] = {name: merged(defaults, world) | {"name": name} for name, world in worlds.items()}
    return checked(Params, rest, "params.yaml", "params.yaml")


def _check_sections(worlds: Mapping[str, object]) -> None:
    """DVC tracks a world's sections by name, so that each world has to state all of them, if only as `{}`."""
    for name, world in worlds.items():
        stated = {"name", *world} if isinstance(world, Mapping) else World.model_fields
        missing = [section for section in World.model_fields if section not in stated]
        if missing:
            raise InputError(f"params.yaml: worlds.{name} lacks {', '.join(missing)}: write `{missing[0]}: {{}}`")


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check `params.yaml`."""
    tree = read_tree(path, "params.yaml", "run from the repository's root")
    if not isinstance(tree, dict):
        raise InputError(f"{path} holds {type(tree).__name__}, not a mapping of parameters")
    return parse_params(tree)
