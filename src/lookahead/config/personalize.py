"""Drawing for people: the numbers that `lookahead personalize` and the pipeline start from."""

from __future__ import annotations

from typing import Literal

from lookahead.config.fields import Count, Fraction, NotNegative, Section
from lookahead.config.stages import KVGuidance, Steering


class Fast(Section):
    """Few steps with the fast child (LCM-LoRA)."""

    scheduler: str
    num_inference_steps: Count
    guidance_scale: NotNegative


class Personalize(Section):
    """How pictures of a person are drawn from portraits and prompts.

    `kv` uses the KV-encoder where the encoder has one, with `portrait_prompt` as the portrait's prompt; `combine` is
    what several portraits become; `min_face_size` is a face's least height, as a share of its picture's shorter side.
    """

    scheduler: str
    num_inference_steps: Count
    guidance_scale: NotNegative
    kv: bool
    kv_guidance: KVGuidance
    adapter_scale: NotNegative
    combine: Literal["average", "concatenate"]
    portrait_prompt: str
    fast: Fast
    steering: Steering
    batch_size: Count
    min_face_size: Fraction
