"""Studies: pipelines of their own, which the main chain does not run; each is a list of cells."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, field_validator, model_validator

from lookahead.config.fields import Count, Section, Seed
from lookahead.config.overrides import merged, with_overrides
from lookahead.config.protocol import Evaluate, Sampling
from lookahead.config.search import Search
from lookahead.errors import InputError

Encoder = Literal["base", "adapter", "train", "train_untuned_kv", "noise_only", "lookahead"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class StudyCell(Section):
    """One cell of a study.

    `encoder` is `base` (the base model without an adapter), `adapter` (untuned), a variant of the main chain, `train`
    (a training of its own by the world's numbers) or `train_untuned_kv` (the same with an untuned KV-encoder). `train`
    are its changes of the training, after those of the cell `after`; `sampling` those of the sampler. It is contrasted
    with the cells `against`.
    """

    label: str
    encoder: Encoder
    after: str | None
    train: dict[str, JsonValue]
    sampling: dict[str, JsonValue]
    against: list[str]

    @property
    def trained(self) -> bool:
        """Whether it has a training of its own."""
        return self.encoder.startswith("train")


class Study(Section):
    """Cells in the order of the table, and the people, prompts, training seeds and samplers of all of them.

    `protocol` holds changes of the evaluation's protocol, and `samplers` changes of its sampling by the sampler's name.
    """

    question: str
    split: Literal["search", "validation"]
    people: Annotated[int, Field(ge=2)]
    photo_prompts: Count
    seeds: Annotated[list[Seed], Field(min_length=1)]
    protocol: dict[str, JsonValue]
    samplers: Annotated[dict[Name, dict[str, JsonValue]], Field(min_length=1)]
    grid_people: Count
    cells: Annotated[dict[Name, StudyCell], Field(min_length=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        known: list[str] = []
        for name, cell in self.cells.items():
            for other in [*cell.against, *([] if cell.after is None else [cell.after])]:
                if other not in known:
                    raise ValueError(f"cell {name!r} names {other!r}, which is no earlier cell: {known}")
            if not cell.trained and (cell.train or cell.after):
                raise ValueError(f"cell {name!r} changes the training, but its encoder is {cell.encoder!r}, not train")
            known.append(name)
        return self

    def evaluation(self, settings: Evaluate) -> Evaluate:
        """The evaluation of every cell, from the world's: each prompt once, no cell steered."""
        own = self.model_dump(include={"split", "people", "photo_prompts", "grid_people"})
        return with_overrides(settings, own | {"seeds": 1, "steering": None} | self.protocol)

    def train_changes(self, name: str) -> dict[str, JsonValue]:
        """All changes of a cell's training, those of the cells that it comes after first."""
        cell = self.cells[name]
        earlier = {} if cell.after is None else self.train_changes(cell.after)
        return earlier | cell.train

    def sampling(self, name: str, sampler: str, settings: Evaluate) -> Sampling:
        """How a cell is drawn by one of the samplers; `settings` are the study's (`evaluation`)."""
        cell = self.cells[name]
        base: dict[str, JsonValue] = {"adapter": False, "adapter_scale": 0.0} if cell.encoder == "base" else {}
        return with_overrides(with_overrides(settings.sampling, self.samplers[sampler]), base | cell.sampling)


class Studies(Section):
    """Every study by its name: lists of cells, and the searches, whose worlds state what differs from `defaults`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Study]
    search: dict[str, Search]

    @field_validator("search", mode="before")
    @classmethod
    def _with_defaults(cls, tree: dict[str, Any]) -> dict[str, Any]:
        if set(tree) != {"defaults", "worlds"}:
            return tree
        return {name: merged(tree["defaults"], own or {}) for name, own in tree["worlds"].items()}

    @property
    def cells(self) -> dict[str, Study]:
        """The studies that are lists of cells."""
        return dict(self.__pydantic_extra__)

    def study(self, name: str) -> Study:
        """The list of cells of this name."""
        if name not in self.cells:
            raise InputError(f"there is no study {name!r}: params.yaml has {', '.join(sorted(self.cells))}")
        return self.cells[name]
