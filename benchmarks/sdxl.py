"""The parts of SDXL and Stable Diffusion 1.5 on paper: the published configurations, where they differ from defaults.

tests/sdxl compares them with the published files, byte for byte in their sizes. `REDUCED` keeps every layer's kind and
narrows it, for a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

UNET: dict[str, Any] = {  # unet/config.json
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "layers_per_block": 2,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),  # heads, as diffusers reads it
    "use_linear_projection": True,
    "cross_attention_dim": 2048,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,  # pooled text 1280, six sizes of 256
}
VAE: dict[str, Any] = {  # config.json of sdxl-vae-fp16-fix
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "sample_size": 512,
    "scaling_factor": 0.13025,
    "force_upcast": False,
}


def _clip(hidden: int, layers: int, heads: int, projection: int, activation: str = "gelu") -> dict[str, Any]:
    shape = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers}
    return shape | {"num_attention_heads": heads, "projection_dim": projection, "hidden_act": activation}


WORDS = {"vocab_size": 49408, "max_position_embeddings": 77}
PATCHES = {"image_size": 224, "patch_size": 14}
TEXT = WORDS | _clip(768, 12, 12, 768, "quick_gelu")  # text_encoder/config.json
TEXT_2 = WORDS | _clip(1280, 32, 20, 1280)  # text_encoder_2/config.json
VISION = PATCHES | _clip(1280, 32, 16, 1024)  # models/image_encoder/config.json of h94/IP-Adapter: OpenCLIP's ViT-H-14
LORA_TARGETS = (  # what LCM-LoRA's training script of diffusers adapts
    *("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"),
    *("conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj"),
)
LORA_RANK = 64
RESAMPLER = {"width": 1280, "tokens": 16, "layers": 4, "heads": 20, "head": 64, "output": 2048}
IRESNET50 = {"widths": (64, 128, 256, 512), "blocks": (3, 4, 14, 3)}  # w600k_r50.onnx, 112 px


@dataclass(frozen=True)
class Sizes:
    """Configurations of all parts, the picture's side in pixels, and the number of image tokens that ViT gives."""

    unet: dict[str, Any]
    vae: dict[str, Any]
    text: dict[str, Any]
    text_2: dict[str, Any]
    vision: dict[str, Any]
    resampler: dict[str, int]
    recogniser: Mapping[str, tuple[int, ...]]
    lora_rank: int
    side: int


SD15 = Sizes(
    unet={"sample_size": 64, "cross_attention_dim": 768},
    vae=VAE | {"scaling_factor": 0.18215},
    text=TEXT,
    text_2={},
    vision=VISION,
    resampler=RESAMPLER | {"width": 768, "heads": 12, "output": 768},
    recogniser=IRESNET50,
    lora_rank=LORA_RANK,
    side=512,
)
FULL = Sizes(UNET, VAE, TEXT, TEXT_2, VISION, RESAMPLER, IRESNET50, LORA_RANK, 1024)
REDUCED = Sizes(
    unet=UNET
    | {
        "sample_size": 32,
        "block_out_channels": (64, 128, 256),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (1, 2, 4),
        "cross_attention_dim": 192,
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 128 + 6 * 32,
    },
    vae=VAE | {"block_out_channels": (32, 64, 64, 64)},
    text=WORDS | _clip(64, 4, 4, 768, "quick_gelu"),
    text_2=WORDS | _clip(128, 8, 4, 128),
    vision=PATCHES | _clip(128, 8, 4, 1024),
    resampler={"width": 128, "tokens": 16, "layers": 4, "heads": 2, "head": 64, "output": 192},
    recogniser={"widths": (8, 16, 32, 64), "blocks": (1, 1, 2, 1)},
    lora_rank=8,
    side=256,
)


class Block(nn.Module):
    """A residual block of ArcFace's network: BN, conv, BN, PReLU, conv (with the stride), BN."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.skip = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, hidden: Tensor) -> Tensor:
        """(B, before, h, w) to (B, after, h / stride, w / stride)."""
        mixed: Tensor = self.body(hidden) + self.skip(hidden)
        return mixed


def iresnet(widths: tuple[int, ...], blocks: tuple[int, ...]) -> nn.Sequential:
    """ArcFace's recogniser from crops (B, 3, 112, 112) to embeddings (B, 512), with random weights."""
    before = widths[0]
    stem = [nn.Conv2d(3, before, 3, 1, 1, bias=False), nn.BatchNorm2d(before), nn.PReLU(before)]
    layers: list[nn.Module] = [*stem]
    for width, count in zip(widths, blocks, strict=True):
        for number in range(count):
            layers.append(Block(before, width, 1 if number else 2))
            before = width
    head = [nn.BatchNorm2d(before), nn.Flatten(), nn.Linear(before * 7 * 7, 512), nn.BatchNorm1d(512)]
    return nn.Sequential(*layers, *head)


def adapter_shapes(sizes: Sizes, cross: dict[int, int]) -> dict[str, tuple[int, ...]]:
    """The tensors of an IP-Adapter-plus file; `cross` has each cross-attention's number and width."""
    width, tokens, layers, heads, head, output = sizes.resampler.values()
    seen = sizes.vision["hidden_size"]
    shapes: dict[str, tuple[int, ...]] = {"latents": (1, tokens, width), "proj_in.weight": (width, seen)}
    shapes |= {"proj_out.weight": (output, width), "proj_in.bias": (width,)}
    shapes |= dict.fromkeys(("proj_out.bias", "norm_out.weight", "norm_out.bias"), (output,))
    for layer in range(layers):
        attention, forward = f"layers.{layer}.0", f"layers.{layer}.1"
        for norm in (f"{attention}.norm1", f"{attention}.norm2", f"{forward}.0"):
            shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
        inner = heads * head
        shapes |= {f"{attention}.to_q.weight": (inner, width), f"{attention}.to_kv.weight": (2 * inner, width)}
        shapes |= {f"{attention}.to_out.weight": (width, inner)}
        shapes |= {f"{forward}.1.weight": (4 * width, width), f"{forward}.3.weight": (width, 4 * width)}
    named = {f"image_proj.{name}": shape for name, shape in shapes.items()}
    for number, channels in cross.items():
        named |= {f"ip_adapter.{number}.{kind}.weight": (channels, output) for kind in ("to_k_ip", "to_v_ip")}
    return named


def cross_attentions(unet: Any) -> dict[int, int]:
    """The number, as IP-Adapter counts, and the width of every cross-attention."""
    names = enumerate(unet.attn_processors)
    return {i: unet.get_submodule(n.removesuffix(".processor")).to_k.out_features for i, n in names if "attn2" in n}
