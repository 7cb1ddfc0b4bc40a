"""A picture by stock diffusers with an exported encoder; this project only says where the files lie."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoPipelineForText2Image, DiffusionPipeline
from PIL import Image
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lookahead.config import read_params
from lookahead.world.hub import find


def main(world: str, exported: str, out: str) -> None:
    """Draw one picture in two steps."""
    row = read_params().of(world).checkpoints
    vision = CLIPVisionModelWithProjection.from_pretrained(
        find("image_encoder", row)[0], subfolder=row.image_encoder.subfolder
    )
    base = find("base", row)[0]
    pipe = AutoPipelineForText2Image.from_pretrained(
        base,
        variant=row.base.partition(":")[2] or None,
        vae=AutoencoderKL.from_pretrained(find("vae", row)[0]),
        image_encoder=vision,
        feature_extractor=CLIPImageProcessor(),
        **({"safety_checker": None} if "safety_checker" in DiffusionPipeline.load_config(base) else {}),
        dtype=torch.float32,
    )
    pipe.load_ip_adapter(exported, subfolder="", weight_name="ip-adapter.safetensors", image_encoder_folder=None)
    portrait = Image.open(Path("models", world, "portraits/test/000/0.jpg"))
    size = {"height": row.resolution, "width": row.resolution}
    pipe("a person in the snow", ip_adapter_image=portrait, num_inference_steps=2, **size).images[0].save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
