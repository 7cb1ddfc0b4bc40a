"""Opens the parts of a world: one loader for hub ids and folders."""
# ruff: noqa: F401
# mypy: implicit-reexport

from lookahead.world.diffusion import (
    FAST_CHILD,
    Pipeline,
    Scorer,
    attach_adapter,
    attach_fast_child,
    decode_latents,
    detach_adapter,
    detach_fast_child,
    encode_latents,
    encode_prompts,
    open_denoiser,
    open_generator,
    open_image_encoder,
    open_pipeline,
    open_preview_vae,
    open_safety_checker,
    open_scorer,
    scheduler_class,
    to_uint8,
)
from lookahead.world.distributed import compute_dtype, device, dtype, frozen, to_device
from lookahead.world.faces import (
    LandmarkDetector,
    detect_faces,
    face_providers,
    open_faces,
    quiet_alignment,
    recogniser_onnx,
)
from lookahead.world.hub import PICTURES, fetch, require, verify
