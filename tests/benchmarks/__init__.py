"""SDXL's structure for pictures of 64 pixels."""

from dataclasses import replace

from benchmarks.sdxl import REDUCED

SMALL = replace(
    REDUCED,
    side=64,
    unet=REDUCED.unet | {"block_out_channels": (32, 64, 64), "attention_head_dim": (1, 1, 1)},
    text=REDUCED.text | {"num_hidden_layers": 1},
    text_2=REDUCED.text_2 | {"num_hidden_layers": 1},
    vision=REDUCED.vision | {"num_hidden_layers": 1},
)
