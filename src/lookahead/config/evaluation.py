"""How pictures are drawn and evaluated: the protocol, a file of its own, and the sections `evaluate`, `personalize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lookahead.config.fields import (
    Count,
    Fraction,
    NotNegative,
    Section,
    Seed,
    Several,
    Steps,
    Timestep,
    Timesteps,
    read_yaml,
)
from lookahead.errors import InputError


class KVGuidance(Section):
    """Guidance weights with a KV-encoder: by image tokens, by them with keys and values, by keys and values alone."""

    image: NotNegative
    both: NotNegative
    kv: NotNegative


class Steering(Timesteps):
    """Lookahead guidance: by how much of a standard deviation the clean latents are shifted in a step (0 switches it
    off), in which timesteps, and how many steps its preview takes."""

    strength: NotNegative
    preview_steps: Count


class Drawing(Steps):
    """What decides how an adapter draws."""

    kv_guidance: KVGuidance
    adapter_scale: NotNegative


class Sampling(Drawing):
    """All that decides how a cell is drawn.

    `adapter` false is the base model alone; `use_kv` uses the keys and values of an encoder that has any; `fast` puts
    the fast child into the U-Net at full strength; `steering` is lookahead guidance.
    """

    adapter: bool
    use_kv: bool
    fast: bool
    steering: Steering | None


class Splits(Section):
    """The folders of portraits that searching, choosing and testing use; nobody is in two of them."""

    search: str
    validation: str
    test: str

    @property
    def folders(self) -> list[Path]:
        """The folders of everybody, one a person; a split that does not exist holds nobody."""
        splits = [Path(split) for split in self.model_dump().values()]
        return [path for split in splits if split.is_dir() for path in sorted(split.iterdir()) if path.is_dir()]


class Protocol(Drawing):
    """People, prompts and sampler of an evaluation: all that decides whether two evaluations may be compared.

    Everybody is drawn in the plain style in `photo_prompts` scenes and in every other style in one, `seeds` times each;
    `groups` name the prompts of both kinds. `seed` is that of the noise.
    """

    splits: Splits
    split: Literal["search", "validation", "test"]
    people: Several
    prompts: str
    groups: dict[str, Literal["plain", "stylised"]]
    photo_prompts: Count
    seeds: Count
    seed: Seed

    @model_validator(mode="after")
    def _both_kinds(self) -> Self:
        if sorted(self.groups.values()) != ["plain", "stylised"]:
            raise ValueError(f"groups names {self.groups}: name one group `plain` and one `stylised`")
        return self

    @property
    def portraits(self) -> str:
        """The folder of the split in use."""
        folder: str = getattr(self.splits, self.split)
        return folder

    @property
    def invented(self) -> bool:
        """Whether its people are invented ones that the training never saw: nobody brought portraits."""
        return Path(self.portraits).parts[:1] == ("runs",)

    @property
    def sampling(self) -> Sampling:
        """How the protocol draws an adapter: with its keys and values, if it has any, without steering."""
        own = {name: getattr(self, name) for name in Drawing.model_fields}
        return Sampling(**own, adapter=True, use_kv=True, fast=False, steering=None)


class PreviewCurves(Section):
    """At which timesteps and strengths of the fast child one-step previews are measured, and of how many people."""

    people: Count
    timesteps: Annotated[list[Timestep], Field(min_length=1)]
    scales: Annotated[list[Fraction], Field(min_length=1)]


class Diversity(Section):
    """How many people and prompts are drawn from how many noises: for diversity, and the layout of the base model."""

    people: Several
    prompts: Count
    seeds: Several


class EvaluateStage(Section):
    """What is no part of a protocol: how many pictures at once, what is shown, the loss of a metric up to which a cell
    is no worse than another (`margin`), the lookahead guidance of the cell `steered`, which null leaves out, and
    further `encoders` by name: folders of encoders that were trained elsewhere, each a cell of its own."""

    batch_size: Count
    grid_people: Count
    margin: dict[str, NotNegative]
    previews: PreviewCurves
    diversity: Diversity
    steering: Steering | None
    encoders: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")], str]


class Evaluate(Protocol, EvaluateStage):
    """An evaluation: its protocol, and how it is carried out."""

    def check(self, second_photos: int, styles: int) -> None:
        """Refuse what it would ask in vain, before any work: of people with a second photo, and of styles."""
        asked, further = self.diversity, styles - 1
        if asked.people > self.people:
            raise InputError(f"diversity.people is {asked.people}, but evaluate.people only {self.people}: lower it")
        if asked.prompts > styles:
            raise InputError(
                f"diversity.prompts is {asked.prompts}: there are a photo and {further} other styles; lower it"
            )
        if (wanted := self.previews.people) > second_photos:
            raise InputError(f"previews.people is {wanted}, but {second_photos} people have a second photo: lower it")
        if self.steering is not None and self.steering.strength == 0:
            raise InputError("evaluate.steering.strength is 0, which steers nothing: raise it, or set steering to null")


class Known(Section):
    """What a small world knows; anything else is drawn after a warning.

    Portraits that its autoencoder rebuilds with at least `min_psnr` decibels, and the words of the file `prompts`.
    """

    min_psnr: NotNegative
    prompts: str


class Personalize(Drawing):
    """How pictures of a person are drawn from portraits and prompts.

    `kv` uses the KV-encoder where the encoder has one, with `portrait_prompt` as the portrait's prompt; `combine` is
    what several portraits become; `fast` draws with the fast child (LCM-LoRA); `min_face_size` is a face's least
    height, as a share of its picture's shorter side. `known` null knows everybody and every word.
    """

    kv: bool
    combine: Literal["average", "concatenate"]
    portrait_prompt: str
    fast: Steps
    steering: Steering
    batch_size: Count
    min_face_size: Fraction
    known: Known | None


def read_protocol(path: str | Path) -> Protocol:
    """Read and check a protocol file."""
    return read_yaml(path, Protocol, "the protocol", "world")
