"""Prompts as data: styles, scenes, further details and invented people, read from a YAML file."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from lookahead.config import Section, read_yaml
from lookahead.errors import InputError

Phrases = Annotated[dict[str, str], Field(min_length=1)]


class Lattice(Section):
    """The combinations (i, j, ...) of the parts with (w0 i + w1 j + ...) % modulus == 0."""

    weights: list[int]
    modulus: Annotated[int, Field(ge=1)]


class People(Section):
    """Invented people: a template over parts, whose combinations, or those on a lattice, are one person each."""

    template: str
    parts: Annotated[dict[str, Annotated[list[str], Field(min_length=1)]], Field(min_length=1)]
    lattice: Lattice | None

    @model_validator(mode="after")
    def _complete(self) -> People:
        _check_fields(self.template, set(self.parts))
        for part, words in self.parts.items():
            if twice := [word for word in words if words.count(word) > 1]:
                raise ValueError(f"parts.{part} names {twice[0]!r} twice")
        if self.lattice is not None and len(self.lattice.weights) != len(self.parts):
            raise ValueError(f"lattice.weights has {len(self.lattice.weights)} numbers for {len(self.parts)} parts")
        return self

    def combinations(self) -> NDArray[np.int64]:
        """The combinations (N, parts) that are people, in a fixed order."""
        every = np.indices([len(words) for words in self.parts.values()]).reshape(len(self.parts), -1).T
        return every if self.lattice is None else every[every @ self.lattice.weights % self.lattice.modulus == 0]


class Prompts(Section):
    """The prompts of a world; `plain` is the style of references, `nobody` the nameless subject.

    `details` are further kinds of phrases, such as expressions; a caption may leave each of them open.
    """

    template: str
    nobody: str
    plain: str
    styles: Phrases
    scenes: Phrases
    details: dict[str, Phrases]
    people: People

    @model_validator(mode="after")
    def _complete(self) -> Prompts:
        _check_fields(self.template, {"subject", *self.kinds})
        if self.plain not in self.styles:
            raise ValueError(f"plain is {self.plain!r}; styles has {sorted(self.styles)}")
        if len(self.styles) < 2:
            raise ValueError("styles needs the plain one and at least one other")
        return self

    @property
    def kinds(self) -> dict[str, Phrases]:
        """All that a caption can say besides the subject: phrases by word, by kind."""
        return {"style": self.styles, "scene": self.scenes, **self.details}

    @property
    def stylised(self) -> list[str]:
        return [style for style in self.styles if style != self.plain]

    def caption(self, subject: str, words: Mapping[str, str]) -> str:
        """The prompt of a picture, e.g. "a pencil drawing of a person in the snow", from a word of each kind.

        A kind that `words` leaves out is left open.
        """
        said = {"subject": subject} | dict.fromkeys(self.kinds, "")
        for kind, word in words.items():
            if word not in self.kinds[kind]:
                raise InputError(f"{word!r} is no {kind} of the prompts file; it has {', '.join(self.kinds[kind])}")
            said[kind] = self.kinds[kind][word]
        return " ".join(self.template.format_map(said).split()).strip(" ,;")

    def neutral(self, style: str, scene: str, **details: str) -> str:
        """The prompt that names no one, so that identity has to come from the reference."""
        return self.caption(self.nobody, {"style": style, "scene": scene, **details})

    @property
    def vocabulary(self) -> set[str]:
        """Every word that a prompt of this file can have."""
        fields = [literal for literal, *_ in string.Formatter().parse(self.template)]
        phrases = [text for kind in self.kinds.values() for text in kind.values()]
        return words_of(" ".join([self.nobody, *fields, *phrases, *itertools.chain(*self.people.parts.values())]))

    def invent(self, count: int, seed: int) -> list[str]:
        """The names of `count` different people; more people begin with the same ones."""
        bank = self.people.combinations()
        if count > len(bank):
            raise InputError(f"{count} people are asked for, the prompts file can invent {len(bank)}: lower `people`")
        order = torch.randperm(len(bank), generator=torch.Generator().manual_seed(seed))
        template, parts = self.people.template, self.people.parts.items()
        chosen = ({part: words[i] for (part, words), i in zip(parts, one, strict=True)} for one in bank[order[:count]])
        return [template.format_map(words) for words in chosen]


def words_of(text: str) -> set[str]:
    """The words of a text, in small letters."""
    return set(re.findall(r"[^\W\d_]+", text.lower()))


def _check_fields(template: str, wanted: set[str]) -> None:
    found = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
    if found != wanted:
        raise ValueError(f"template {template!r} has the fields {sorted(found)} and needs {sorted(wanted)}")


def read_prompts(path: str | Path) -> Prompts:
    """Read and check a prompts file."""
    return read_yaml(path, Prompts, "the prompts file", "prompts")
