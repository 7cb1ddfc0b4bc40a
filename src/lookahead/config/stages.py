"""The evaluation: the sections that the stage `evaluate` reads."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from lookahead.config.fields import Count, Fraction, NotNegative, Section, Timestep


class KVGuidance(Section):
    """Guidance weights with a KV-encoder: by image tokens, by them with keys and values, by keys and values alone."""

    image: NotNegative
    both: NotNegative
    kv: NotNegative


class Steering(Section):
    """Lookahead guidance: by how much of a standard deviation the clean latents are shifted in a step (0 switches it
    off), in which timesteps, and how many steps its preview takes."""

    strength: NotNegative
    timestep_min: Timestep
    timestep_max: Timestep
    preview_steps: Count

    @model_validator(mode="after")
    def _ordered(self) -> Steering:
        if self.timestep_min > self.timestep_max:
            raise ValueError(
                f"timestep_min ({self.timestep_min}) is above timestep_max ({self.timestep_max}): swap them"
            )
        return self


class PreviewCurves(Section):
    """At which timesteps and strengths of the fast child one-step previews are measured, and of how many people."""

    people: Count
    timesteps: Annotated[list[Timestep], Field(min_length=1)]
    scales: Annotated[list[Fraction], Field(min_length=1)]


class Diversity(Section):
    """How many people and prompts are drawn from how many noises: for diversity, and the layout of the base model."""

    people: Annotated[int, Field(ge=2)]
    prompts: Count
    seeds: Annotated[int, Field(ge=2)]


class EvaluateStage(Section):
    """What is no part of a protocol: how many pictures at once, what is shown, the loss of a
    metric up to which a cell is no worse than another (`margin`), and the lookahead guidance of the cell `steered`,
    which null leaves out."""

    batch_size: Count
    grid_people: Count
    margin: dict[str, NotNegative]
    previews: PreviewCurves
    diversity: Diversity
    steering: Steering | None
