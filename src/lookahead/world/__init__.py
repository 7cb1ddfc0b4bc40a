"""Opens the parts of a world: one loader for hub ids and folders (design §2)."""

from lookahead.world.devices import compute_dtype, device, dtype, frozen, to_device
from lookahead.world.diffusion import (
    FAST_CHILD,
    Pipeline,
    attach_adapter,
    attach_fast_child,
    decode_latents,
    detach_adapter,
    detach_fast_child,
    encode_latents,
    open_denoiser,
    open_generator,
    open_pipeline,
    open_preview_vae,
    scheduler_class,
)
from lookahead.world.faces import LandmarkDetector, detect_faces, open_faces, quiet_alignment, recogniser_onnx
from lookahead.world.hub import fetch, require
from lookahead.world.images import Scorer, open_image_encoder, open_scorer

__all__ = [
    "FAST_CHILD",
    "LandmarkDetector",
    "Pipeline",
    "Scorer",
    "attach_adapter",
    "attach_fast_child",
    "compute_dtype",
    "decode_latents",
    "detach_adapter",
    "detach_fast_child",
    "detect_faces",
    "device",
    "dtype",
    "encode_latents",
    "fetch",
    "frozen",
    "open_denoiser",
    "open_faces",
    "open_generator",
    "open_image_encoder",
    "open_pipeline",
    "open_preview_vae",
    "open_scorer",
    "quiet_alignment",
    "recogniser_onnx",
    "require",
    "scheduler_class",
    "to_device",
]
