"""Prompts as data: styles, scenes and the bank of invented people, read from a YAML file."""

from __future__ import annotations

import itertools
import string
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lookahead.config import read_yaml
from lookahead.errors import InputError

Phrases = Annotated[dict[str, str], Field(min_length=1)]


class Lattice(BaseModel):
    """The combinations (i, j, ...) of the parts with (w0 i + w1 j + ...) % modulus == 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    weights: list[int]
    modulus: Annotated[int, Field(ge=1)]

    def holds(self, combination: tuple[int, ...]) -> bool:
        """Whether a combination lies on the lattice."""
        return sum(w * i for w, i in zip(self.weights, combination, strict=True)) % self.modulus == 0


class People(BaseModel):
    """Invented people: a template over parts, whose combinations, or those on a lattice, are one person each."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    template: str
    parts: Annotated[dict[str, Annotated[list[str], Field(min_length=1)]], Field(min_length=1)]
    lattice: Lattice | None

    @model_validator(mode="after")
    def _complete(self) -> People:
        _check_fields(self.template, set(self.parts))
        for part, words in self.parts.items():
            if len(set(words)) != len(words):
                raise ValueError(f"parts.{part} names {_repeated(words)!r} twice")
        if self.lattice is not None and len(self.lattice.weights) != len(self.parts):
            raise ValueError(f"lattice.weights has {len(self.lattice.weights)} numbers for {len(self.parts)} parts")
        return self

    def combinations(self) -> list[tuple[int, ...]]:
        """The combinations that are people, in a fixed order."""
        every = itertools.product(*(range(len(words)) for words in self.parts.values()))
        return [c for c in every if self.lattice is None or self.lattice.holds(c)]

    def name(self, combination: tuple[int, ...]) -> str:
        """The text of one person."""
        words = {part: self.parts[part][i] for part, i in zip(self.parts, combination, strict=True)}
        return self.template.format_map(words)


class Prompts(BaseModel):
    """The prompts of a world; `plain` is the style of references, `nobody` the nameless subject."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    template: str
    nobody: str
    plain: str
    styles: Phrases
    scenes: Phrases
    people: People

    @model_validator(mode="after")
    def _complete(self) -> Prompts:
        _check_fields(self.template, {"style", "subject", "scene"})
        if self.plain not in self.styles:
            raise ValueError(f"plain is {self.plain!r}; styles has {sorted(self.styles)}")
        if len(self.styles) < 2:
            raise ValueError("styles needs the plain one and at least one other")
        return self

    @property
    def stylised(self) -> list[str]:
        """The names of the styles other than the plain one."""
        return [style for style in self.styles if style != self.plain]

    def caption(self, style: str, scene: str, subject: str) -> str:
        """The prompt of a picture, e.g. "a pencil drawing of a person in the snow".

        Raises:
            InputError: the style or the scene is unknown.
        """
        for kind, word, known in (("style", style, self.styles), ("scene", scene, self.scenes)):
            if word not in known:
                raise InputError(f"{word!r} is no {kind} of the prompts file; it has {', '.join(known)}")
        return self.template.format(style=self.styles[style], subject=subject, scene=self.scenes[scene])

    def neutral(self, style: str, scene: str) -> str:
        """The prompt that names no one, so that identity has to come from the reference."""
        return self.caption(style, scene, self.nobody)

    def invent(self, count: int, seed: int) -> list[str]:
        """The names of `count` different people, the same for the same seed.

        Raises:
            InputError: the bank holds fewer people.
        """
        bank = self.people.combinations()
        if count > len(bank):
            raise InputError(f"{count} people are asked for, the prompts file can invent {len(bank)}: lower `people`")
        order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(seed)).tolist()
        return [self.people.name(bank[i]) for i in order[:count]]


def _check_fields(template: str, wanted: set[str]) -> None:
    found = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    if found != wanted:
        raise ValueError(f"template {template!r} has the fields {sorted(found)} and needs {sorted(wanted)}")


def _repeated(words: list[str]) -> str:
    return next(word for word in words if words.count(word) > 1)


def read_prompts(path: str | Path) -> Prompts:
    """Read and check a prompts file.

    Raises:
        InputError: the file is missing, is not YAML, or a key is unknown, missing or wrong; each is named.
    """
    return read_yaml(path, Prompts, "the prompts file", "prompts")
