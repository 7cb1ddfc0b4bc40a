"""The evaluation's protocol, a file of its own: everything that decides whether two evaluations may be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from lookahead.config.fields import Count, NotNegative, Section, Seed, Split
from lookahead.config.files import read_yaml
from lookahead.config.stages import EvaluateStage, KVGuidance, Steering

Styles = Literal["plain", "stylised"]


class Splits(Section):
    """The folders of portraits that searching, choosing and testing use; nobody is in two of them."""

    search: str
    validation: str
    test: str


class Sampling(Section):
    """All that decides how a cell is drawn.

    `adapter` false is the base model alone; `use_kv` uses the keys and values of an encoder that has any; `fast` puts
    the fast child into the U-Net at full strength; `steering` is lookahead guidance.
    """

    scheduler: str
    num_inference_steps: Count
    guidance_scale: NotNegative
    kv_guidance: KVGuidance
    adapter_scale: NotNegative
    adapter: bool
    use_kv: bool
    fast: bool
    steering: Steering | None


class Protocol(Section):
    """People, prompts and sampler of an evaluation.

    Everybody is drawn in the plain style in `photo_prompts` scenes and in every other style in one, `seeds` times each;
    `groups` name the prompts of both kinds. `seed` is that of the noise.
    """

    splits: Splits
    split: Split
    people: Annotated[int, Field(ge=2)]
    prompts: str
    groups: dict[str, Styles]
    photo_prompts: Count
    seeds: Count
    scheduler: str
    num_inference_steps: Count
    guidance_scale: NotNegative
    kv_guidance: KVGuidance
    adapter_scale: NotNegative
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
    def sampling(self) -> Sampling:
        """How the protocol draws an adapter: with its keys and values, if it has any, without steering."""
        return Sampling(
            scheduler=self.scheduler,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            kv_guidance=self.kv_guidance,
            adapter_scale=self.adapter_scale,
            adapter=True,
            use_kv=True,
            fast=False,
            steering=None,
        )


class Evaluate(Protocol, EvaluateStage):
    """An evaluation: its protocol, and how it is carried out."""


def read_protocol(path: str | Path) -> Protocol:
    """Read and check a protocol file."""
    return read_yaml(path, Protocol, "the protocol", "world")
