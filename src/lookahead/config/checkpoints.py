"""The pretrained parts of a world."""

from __future__ import annotations

from typing import Literal

from lookahead.config.fields import Count, Section, Steps


class Generator(Steps):
    """The few-step generator: a pipeline, with a LoRA fused into it or none."""

    pipeline: str
    lora: str | None


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
    """

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
