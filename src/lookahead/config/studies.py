"""Studies, which the main chain does not run: lists of cells, and searches, whose space is data."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, field_validator, model_validator

from lookahead.config.evaluation import Evaluate, Sampling
from lookahead.config.fields import Count, Fraction, Section, Seed, Several, merged, with_overrides
from lookahead.errors import InputError

Value = bool | int | float | str
Encoder = Literal["base", "adapter", "train", "train_untuned_kv", "noise_only", "lookahead"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


def check_storage(address: str | None) -> None:
    """Refuse an address that is no PostgreSQL server's; None stands for this machine's file."""
    if address is not None and not address.startswith("postgresql+psycopg://"):
        raise InputError(
            f"--storage is {address!r}: give postgresql+psycopg://user@host/database, which machines share"
        )


class _Entry(Section):
    path: str
    when: dict[str, list[Value]]


class _Ends(_Entry):
    low: float
    high: float
    log: bool

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"the range of {self.path} goes from {self.low} to {self.high}: low has to be below high")
        if self.log and self.low <= 0:
            raise ValueError(f"the range of {self.path} is logarithmic and begins at {self.low}: begin above 0")
        return self


class FloatRange(_Ends):
    """A real parameter below `train`, drawn evenly or, with `log`, evenly in its logarithm."""

    kind: Literal["float"]


class IntRange(_Ends):
    """A whole-numbered parameter below `train`, both ends included."""

    kind: Literal["int"]
    low: int
    high: int


class Choices(_Entry):
    """A parameter below `train` that takes one of some values."""

    kind: Literal["categorical"]
    choices: Annotated[list[Value], Field(min_length=2)]


Range = Annotated[FloatRange | IntRange | Choices, Field(discriminator="kind")]


class Checks(Section):
    """Evaluations on the way of a trial: every so many steps, on so many people; the median prunes by them."""

    every: Count
    people: Several


class Confirm(Section):
    """How many settings of the front are trained at full length, with which fresh seeds, and scored on whom."""

    settings: Annotated[int, Field(ge=1, le=3)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    split: Literal["search", "validation"]
    people: Several


class Heartbeat(Section):
    """Seconds between a worker's signs of life, seconds without one after which its trial is run again, how often."""

    interval: Count
    grace: Count
    retries: Count


class Search(Section):
    """One study of one world.

    `pareto` looks for the front of identity and prompt alignment, `constrained` for the best identity whose prompt
    alignment is at most `prompt_loss` below the untuned adapter's. `split` is the one of the
    protocol's whose first `people` are drawn: never `test`. In `space`, `when` names other entries and the values of
    theirs with which a parameter is drawn; without them it keeps its value of `params.yaml`. The study ends with
    `trials` complete or pruned ones, or as many failed ones. `workers` processes of this machine share the trials.
    """

    mode: Literal["pareto", "constrained"]
    trials: Count
    workers: Count
    startup: Count
    seed: Seed
    steps: Count
    split: Literal["search", "validation"]
    people: Several
    photo_prompts: Count
    num_inference_steps: Count
    prompt_loss: Fraction
    checks: Checks
    confirm: Confirm
    heartbeat: Heartbeat
    contours: list[Annotated[list[str], Field(min_length=2, max_length=2)]]
    space: Annotated[dict[str, Range], Field(min_length=1)]

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        names = list(self.space)
        for number, one in enumerate(self.space.values()):
            if later := set(one.when) - set(names[:number]):
                raise ValueError(f"{names[number]!r} is drawn by {later}: name an entry above it, {names[:number]}")
        if unknown := {name for pair in self.contours for name in pair} - set(names):
            raise ValueError(f"contours name {unknown}, which are not in the space: {names}")
        if self.seed in self.confirm.seeds:
            raise ValueError(f"confirm.seeds holds {self.seed}, the trials' own seed: confirm with fresh ones")
        return self


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
    people: Several
    photo_prompts: Count
    seeds: Annotated[list[Seed], Field(min_length=1)]
    protocol: dict[str, JsonValue]
    samplers: Annotated[dict[Name, dict[str, JsonValue]], Field(min_length=1)]
    grid_people: Count
    cells: Annotated[dict[Name, StudyCell], Field(min_length=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        known: list[str | None] = [None]
        for name, cell in self.cells.items():
            for other in [*cell.against, cell.after]:
                if other not in known:
                    raise ValueError(f"cell {name!r} names {other!r}, which is no earlier cell: {known[1:]}")
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
        return cell.train if cell.after is None else self.train_changes(cell.after) | cell.train

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
