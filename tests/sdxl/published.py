"""The published files' sizes, and what safetensors would write for given tensors.

Each size was read in November 2026 in at least two public repositories that list the hub's files and do not copy each
other: their downloaders compare sizes and SHA-256.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

BYTES = {  # of the files
    ("sdxl", "unet"): 5_135_149_760,  # unet/diffusion_pytorch_model.fp16.safetensors
    ("sdxl", "text"): 246_144_152,  # text_encoder/model.fp16.safetensors
    ("sdxl", "text_2"): 1_389_382_176,  # text_encoder_2/model.fp16.safetensors
    ("sdxl", "vae"): 334_643_238,  # diffusion_pytorch_model.safetensors, float32
    ("sdxl", "base_vae"): 167_335_342,  # vae/diffusion_pytorch_model.fp16.safetensors
    ("sdxl", "preview_vae"): 9_793_292,  # diffusion_pytorch_model.safetensors, float32
    ("sdxl", "image_encoder"): 2_528_373_448,  # models/image_encoder/model.safetensors, float32; also sd15's
    ("sdxl", "adapter"): 847_517_512,  # sdxl_models/ip-adapter-plus-face_sdxl_vit-h.safetensors, float16
    ("sdxl", "fast_child"): 393_855_224,  # pytorch_lora_weights.safetensors, float16
    ("sd15", "unet"): 1_719_125_304,
    ("sd15", "text"): 246_144_864,
    ("sd15", "vae"): 334_643_276,
    ("sd15", "preview_vae"): 9_793_292,
    ("sd15", "adapter"): 98_183_288,  # models/ip-adapter-plus-face_sd15.safetensors, float16
    ("sd15", "fast_child"): 134_621_556,
}
RECOGNISER_BYTES = 174_383_860  # w600k_r50.onnx of buffalo_l, float32

Shapes = Mapping[str, tuple[int, ...]]
_WIDTH = {"F16": 2, "F32": 4, "I64": 8}


def data_bytes(shapes: Shapes, kind: str) -> int:
    """Bytes of these tensors in one number format."""
    return sum(math.prod(shape) for shape in shapes.values()) * _WIDTH[kind]


def header_bytes(shapes: Shapes, kind: str, metadata: Mapping[str, str], before: Shapes) -> int:
    """Length of the JSON header that safetensors writes for these tensors, with int64 ones before them, unpadded."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    start = 0
    for group, format_ in ((before, "I64"), (shapes, kind)):
        for name in sorted(group):
            end = start + data_bytes({name: group[name]}, format_)
            header[name] = {"dtype": format_, "shape": list(group[name]), "data_offsets": [start, end]}
            start = end
    return len(json.dumps(header, separators=(",", ":")))


def kohya(module: str) -> str:
    """A module's name in kohya's LoRA files: `lora_unet_` and the path with underscores."""
    return "lora_unet_" + module.replace(".", "_")
