"""The pretrained parts of a world."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lookahead.config.fields import Count, Section, Steps, Timestep


class Lora(Section):
    """A LoRA's folder or repository, and the name of its file."""

    source: str
    weight_name: str


class FastChild(Lora):
    """The few-step LoRA that forms previews: LCM-LoRA, or one distilled for the few `timesteps` that are named.

    The lookahead loss then draws its timesteps from these; null stands for all.
    """

    timesteps: Annotated[list[Timestep], Field(min_length=1)] | None


class Generator(Steps):
    """The few-step generator: a pipeline, with a LoRA fused into it or none, and its pictures' side in pixels."""

    pipeline: str
    lora: Lora | None
    resolution: Count


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
    weight_name: str


class ImageEncoder(Section):
    """The CLIP vision encoder whose hidden states the image adapter reads."""

    source: str
    subfolder: str


class Scorer(Section):
    """The text-image scorer: an open_clip model name (or `local-dir:` folder) and its pretrained tag."""

    model: str
    pretrained: str | None


class Checkpoints(Section):
    """Every pretrained part of a world: a folder, or `owner/name[@commit][:weights]` on the hub.

    The commit has 40 digits; `weights` names the variant of the files, such as fp16. Packs and scorers are names.
    `precision` "auto" is bfloat16 on a GPU that has it, float16 on another one, which then draws but does not train,
    and float32 on a CPU. `resolution` is the side of all pictures in pixels.
    """

    base: str
    vae: str | None
    preview_vae: str
    fast_child: FastChild
    generator: Generator
    adapter: Adapter
    image_encoder: ImageEncoder
    faces: FacePacks
    scorer: Scorer
    precision: Literal["auto", "float32", "float16", "bfloat16"]
    resolution: Count
