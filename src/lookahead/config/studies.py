"""Studies: pipelines of their own, which the main chain does not run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from lookahead.config.fields import Count, Positive, Section, Seed
from lookahead.config.overrides import merged, with_overrides
from lookahead.config.protocol import Evaluate
from lookahead.config.search import Search


class Row(Section):
    """One variant of an ablation.

    `tuned` says where its encoder comes from: `nothing` is the untuned adapter, `train` a training of its own with the
    world's numbers and `changes`, `adapter` the same with an untuned KV-encoder put beside it. `changes` are those of
    the row `after`, if it names one, and then its own: parameter paths below `train` and their values.
    """

    label: str
    after: str | None
    tuned: Literal["nothing", "train", "adapter"]
    changes: dict[str, JsonValue]


class Cells(Section):
    """A study of many cells, each with an evaluation of so many people, scenes in the plain style, sampling steps."""

    people: Annotated[int, Field(ge=2)]
    photo_prompts: Count
    steps: Count

    def protocol(self, settings: Evaluate) -> Evaluate:
        """The evaluation of every cell, from the world's; no cell is steered."""
        return with_overrides(
            settings, self.model_dump(include=set(Cells.model_fields)) | {"seeds": 1, "steering": None}
        )


class Ablation(Cells):
    """Rows in the order of the table, training seeds, and the fast child's steps."""

    seeds: Annotated[list[Seed], Field(min_length=1)]
    fast_steps: Count
    grid_people: Count
    rows: Annotated[dict[str, Row], Field(min_length=2)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        known: list[str] = []
        for name, row in self.rows.items():
            if row.after is not None and row.after not in known:
                raise ValueError(f"row {name!r} comes after {row.after!r}, which is no earlier row: {known}")
            known.append(name)
        return self

    def changes(self, name: str) -> dict[str, JsonValue]:
        """All changes of a row, those of the rows that it comes after first."""
        row = self.rows[name]
        earlier = {} if row.after is None else self.changes(row.after)
        return earlier | row.changes


class Curves(Cells):
    """Adapters over their strength: which strengths."""

    scales: Annotated[list[Positive], Field(min_length=1)]

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.scales != sorted(set(self.scales)):
            raise ValueError(f"scales are {self.scales}: give each once, in rising order")
        return self


class Studies(Section):
    """Every study; a search is of one world, which states what differs from the searches' `defaults`."""

    ablation: Ablation
    curves: Curves
    search: dict[str, Search]

    @field_validator("search", mode="before")
    @classmethod
    def _with_defaults(cls, tree: dict[str, Any]) -> dict[str, Any]:
        if set(tree) != {"defaults", "worlds"}:
            return tree
        return {name: merged(tree["defaults"], own or {}) for name, own in tree["worlds"].items()}
