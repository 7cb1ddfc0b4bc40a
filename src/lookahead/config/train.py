"""The dataset and the tuning of the encoder: the sections of the stages `generate`, `photos`, `features`, `train`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lookahead.config.fields import Count, Fraction, NotNegative, Positive, Section, Seed, Several, Timesteps

Similarity = Annotated[float, Field(ge=-1.0, le=1.0)]
# The names of `method`'s dictionaries DENSITIES, PREVIEWS and DISTANCES: here, so that a wrong name is refused without
# importing torch (tests/training/test_step.py compares them).
DensityName = Literal["uniform", "cosine", "power", "logit_normal"]
PreviewName = Literal["consistency"]
DistanceName = Literal["identity"]


class Generate(Section):
    """How many invented people and pictures of them are drawn, and how consistent they must be.

    `max_second_face` is the area above which a further face counts, as a share of the largest one's.
    """

    people: Count
    photos: Several
    stylised: Count
    batch_size: Count
    shard_size: Count
    seed: Seed
    prompts: str
    min_photo_similarity: Similarity
    min_stylised_similarity: Similarity
    min_images: Count
    max_second_face: Fraction
    licences: dict[str, str]


class Photos(Section):
    """Own photos: what is read, how a face is cut out (`margin` in lengths of its box), and what is kept of a person.

    `min_face_size` is in pixels; `max_second_face` as in `Generate`.
    """

    prompts: str
    shard_size: Count
    min_face_size: Count
    max_pixels: Count
    margin: Annotated[float, Field(ge=1.0)]
    max_second_face: Fraction
    min_photo_similarity: Similarity
    min_images: Count

    @property
    def min_stylised_similarity(self) -> float:
        """Own pictures all count as photos."""
        return self.min_photo_similarity


class Features(Section):
    """How the dataset is encoded; whoever is more similar to a person of the evaluation is left out."""

    batch_size: Count
    max_evaluation_similarity: Similarity


class Density(Timesteps):
    """A density of timesteps between two bounds, whose strength is annealed from `strength` to `final_strength`."""

    kind: DensityName
    annealing: Literal["constant", "linear", "cosine"]
    strength: float
    final_strength: float

    @model_validator(mode="after")
    def _strengths_in_range(self) -> Density:
        low, high = {"cosine": (-1.0, 1.0), "power": (0.0, 10.0)}.get(self.kind, (-5.0, 5.0))
        for strength in (self.strength, self.final_strength):
            if not low <= strength <= high:
                raise ValueError(f"the strength of a {self.kind} density is {strength}: choose {low} to {high}")
        return self


class LoraScale(Section):
    """The range of alpha_LoRA, the probability of exactly 1, and how many optimizer steps share a draw."""

    low: Fraction
    high: Fraction
    probability_of_one: Fraction
    redraw_every: Count

    @model_validator(mode="after")
    def _ordered(self) -> LoraScale:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high}): swap them")
        return self


class Preview(Section):
    """The preview of Eq. 3: whose prediction, from where, how and in how many steps, and through how many the gradient
    goes."""

    model: Literal["lcm", "naive"]
    start: Literal["target", "noise"]
    stepping: PreviewName
    steps: Count
    gradient_steps: Count
    boundary: bool

    @model_validator(mode="after")
    def _possible(self) -> Preview:
        if self.gradient_steps > self.steps:
            raise ValueError(f"gradient_steps ({self.gradient_steps}) is above steps ({self.steps}): lower it")
        return self


class Lookahead(Section):
    """The lookahead loss (Eq. 4): its weight (0 switches it off), its preview, its distance, its alpha_LoRA."""

    weight: NotNegative
    preview: Preview
    distance: DistanceName
    landmarks: Literal["target", "detected", "detected_only"]
    against: Literal["reference", "centroid"]
    weight_by_scale: bool
    lora_scale: LoraScale
    density: Density


class KV(Section):
    """The KV-encoder: LoRA ranks of its attention and of the shared keys and values, token dropout, learning rate."""

    enabled: bool
    rank: Count
    shared_rank: Count
    token_dropout: Annotated[float, Field(ge=0.0, lt=1.0)]
    learning_rate: Positive


class Train(Section):
    """Tuning the encoder; all variants share every number here.

    `photos_only` leaves stylised targets out; `own_photos` is the share of targets from own photos, if there are any.
    `channels_last` is the memory format of the U-Nets' convolutions.
    `activation_memory_budget` is the share of activations that compiled U-Nets keep; they compute the others twice.
    """

    steps: Count
    batch_size: Count
    gradient_accumulation_steps: Count
    learning_rate: Positive
    lr_scheduler: Literal["constant", "linear", "cosine"]
    lr_warmup_steps: Annotated[int, Field(ge=0)]
    weight_decay: NotNegative
    max_grad_norm: Positive
    ema_decay: Annotated[float, Field(ge=0.0, lt=1.0)]
    image_dropout: Fraction
    text_dropout: Fraction
    photos_only: bool
    own_photos: Fraction
    noise_density: Density
    lookahead: Lookahead
    share_timesteps: bool
    kv: KV
    gradient_checkpointing: bool
    channels_last: bool
    compile: bool
    activation_memory_budget: Fraction
    checkpoint_every: Count
    checkpoints_total_limit: Count
    sample_every: Count
    num_samples: Count
    sample_num_inference_steps: Count
    sample_guidance_scale: NotNegative
    seed: Seed

    @model_validator(mode="after")
    def _budget_for_compiled(self) -> Train:
        budget = self.activation_memory_budget
        if budget < 1 and not self.compile:
            raise ValueError(f"activation_memory_budget is {budget}, which needs compile: true; without it, choose 1.0")
        return self

    @property
    def shares_draws(self) -> bool:
        """Whether both losses see the same timesteps and noise: previews from pure noise all start at T - 1."""
        return self.share_timesteps and self.lookahead.preview.start == "target"
