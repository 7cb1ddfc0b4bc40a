"""The strict, typed mirror of `params.yaml`: every number lives there, none here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lookahead.errors import InputError

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Timestep = Annotated[int, Field(ge=0, lt=1000)]
Variant = Literal["noise_only", "lookahead"]


class Section(BaseModel):
    """A frozen section of the parameters; unknown keys are errors, and nothing has a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Generator(Section):
    """The few-step generator: a pipeline, with a LoRA fused into it or none."""

    pipeline: str
    lora: str | None
    scheduler: str
    steps: Count
    guidance: NotNegative


class FacePacks(Section):
    """Three insightface packs (folders of ONNX files, or names) and the detector's input size in pixels."""

    loss: str
    select: str
    report: str
    detection_size: Count


class Adapter(Section):
    """An IP-Adapter file: the folder or repository it lies in, the sub-folder and the file's name."""

    source: str
    subfolder: str
    weight: str


class ImageEncoder(Section):
    """The CLIP vision encoder whose hidden states the image adapter reads."""

    source: str
    subfolder: str


class Scorer(Section):
    """The text-image scorer: an open_clip model name (or `local-dir:` folder) and its pretrained tag."""

    model: str
    pretrained: str | None


class Checkpoints(Section):
    """Every pretrained part of a world, as a hub id or a folder."""

    base: str
    vae: str | None
    preview_vae: str
    fast_child: str
    generator: Generator
    adapter: Adapter
    image_encoder: ImageEncoder
    faces: FacePacks
    scorer: Scorer
    precision: Literal["float32", "float16", "bfloat16"]
    resolution: Count


class Generate(Section):
    """How many invented people and pictures of them are drawn, and how consistent they must be."""

    people: Count
    photos: Annotated[int, Field(ge=2)]
    stylised: Count
    batch: Count
    shard: Count
    seed: Seed
    prompts: str
    keep_photo: Annotated[float, Field(ge=-1.0, le=1.0)]
    keep_stylised: Annotated[float, Field(ge=-1.0, le=1.0)]
    keep_images: Count


class Features(Section):
    """How the dataset is encoded."""

    batch: Count


class Density(Section):
    """A cosine timestep density p(t) ~ 1 - strength cos(pi t / T)."""

    strength: Fraction


class LoraScale(Section):
    """The range of alpha_LoRA, the probability of exactly 1, and how many micro-batches share a draw."""

    low: Fraction
    high: Fraction
    probability_of_one: Fraction
    redraw_every: Count

    @model_validator(mode="after")
    def _ordered(self) -> LoraScale:
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high}): swap them")
        return self


class Lookahead(Section):
    """The lookahead loss (Eq. 4): its weight, its preview and the strengths at which it is formed."""

    weight: NotNegative
    preview: Literal["lcm", "naive"]
    times_scale: bool
    lora_scale: LoraScale
    density: Density
    timestep_min: Timestep
    timestep_max: Timestep

    @model_validator(mode="after")
    def _ordered(self) -> Lookahead:
        if self.timestep_min > self.timestep_max:
            raise ValueError(f"timestep_min ({self.timestep_min}) is above timestep_max ({self.timestep_max})")
        return self


class Train(Section):
    """Tuning the encoder; both variants share every number here."""

    steps: Count
    batch: Count
    accumulate: Count
    learning_rate: Positive
    warmup: Annotated[int, Field(ge=0)]
    weight_decay: NotNegative
    clip: Positive
    image_drop: Fraction
    noise_density: Density
    lookahead: Lookahead
    gradient_checkpointing: bool
    checkpoint_every: Count
    sample_every: Count
    samples: Count
    sample_steps: Count
    sample_guidance: NotNegative
    seed: Seed


class Evaluate(Section):
    """The evaluation protocol: people, prompts, sampler, statistics."""

    portraits: str
    people: Annotated[int, Field(ge=2)]
    prompts: str
    photo_prompts: Count
    seeds: Count
    sampler: str
    steps: Count
    guidance: NotNegative
    adapter_scale: NotNegative
    batch: Count
    bootstrap: Count
    grid_people: Count
    seed: Seed


class World(Section):
    """One world's checkpoints and its stages' numbers."""

    checkpoints: Checkpoints
    generate: Generate
    features: Features
    train: Train
    evaluate: Evaluate


class Tracking(Section):
    """Where runs are logged; switching it off changes no output."""

    enabled: bool
    uri: str
    experiment: str


class Part(Section):
    """How one part of the miniature is trained."""

    steps: Count
    batch: Count
    learning_rate: Positive
    seed: Seed


class Miniature(Section):
    """The training of the miniature's parts and the sizes of its portrait sets."""

    pool_shards: Count
    vae_shards: Count
    trajectories: Count
    parts: dict[str, Part]
    search_people: Count
    validation_people: Count
    test_people: Count


class Params(Section):
    """The whole of `params.yaml`."""

    world: str
    tracking: Tracking
    worlds: dict[str, World]
    miniature: Miniature

    @model_validator(mode="after")
    def _known_world(self) -> Params:
        if self.world not in self.worlds:
            raise ValueError(f"world is {self.world!r}; params.yaml has {sorted(self.worlds)}")
        return self

    @property
    def active(self) -> World:
        """The world that `world` names."""
        return self.worlds[self.world]


def parse_params(tree: Mapping[str, object]) -> Params:
    """Check a parameter tree.

    Raises:
        InputError: a key is unknown or missing, or a value is out of range; the message names each one.
    """
    try:
        return Params.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, e['loc'])) or 'params.yaml'}: {e['msg']} (got {e['input']!r:.80})"
            for e in error.errors()
        ]
        raise InputError("params.yaml is not valid:\n" + "\n".join(lines)) from None


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check `params.yaml`.

    Raises:
        InputError: the file is missing, is not YAML, or holds a bad parameter.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run from the repository's root") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path} holds {type(tree).__name__}, not a mapping of parameters")
    return parse_params(tree)
