"""A world small enough for tests: random weights in every file format of the design, written in a few seconds."""

import gc
import json
from dataclasses import replace
from pathlib import Path

import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from benchmarks.sdxl import REDUCED, adapter_shapes, cross_attentions
from lookahead.config import Adapter, Checkpoints, FacePacks, FastChild, Features, Generator, ImageEncoder, Lora, Scorer
from miniature.base import new_scheduler
from miniature.encoders import build_tokenizer
from tests.tiny_faces import build_face_packs

RESOLUTION = 64
LORA_FILE = "pytorch_lora_weights.safetensors"
TOKENS = 4  # image tokens of the adapter
VISION = 32  # width of the image encoder
TREE = {  # a prompts file of 12 people, 3 styles and 2 scenes
    "template": "{style} of {subject} {mood} {scene}",
    "nobody": "a person",
    "plain": "photo",
    "styles": {"photo": "a photo", "pencil": "a pencil drawing", "oil": "an oil painting"},
    "scenes": {"studio": "in a studio", "snow": "in the snow"},
    "details": {"mood": {"glad": "glad", "sad": "sad"}},
    "people": {
        "template": "{first} {last}",
        "parts": {"first": ["anna", "bela", "cora", "dina"], "last": ["abel", "berg", "cole"]},
        "lattice": None,
    },
}


def _clip(width: int) -> dict[str, int]:
    return {"hidden_size": width, "intermediate_size": width, "num_hidden_layers": 2, "num_attention_heads": 2}


def _text_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    marks = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    sizes = {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_dim": 64}
    return CLIPTextConfig(**_clip(width), **sizes, **marks)


def build_unet(xl: bool = True) -> UNet2DConditionModel:
    """A U-Net with SDXL's conditioning, or without pooled text and sizes, two resolutions and two channel counts."""
    added = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 64 + 6 * 8,
    }
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1),
        attention_head_dim=(1, 2),
        use_linear_projection=True,
        cross_attention_dim=96 if xl else 32,
        norm_num_groups=8,
        **(added if xl else {}),
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=RESOLUTION,
        scaling_factor=0.5,
    )


def save_base(path: Path, prediction_type: str, xl: bool = True) -> UNet2DConditionModel:
    """Write a pipeline folder of SDXL, or of Stable Diffusion 1.5, with their noise schedule."""
    tokenizer, vae, unet = build_tokenizer(path / "tokenizer"), _vae(), build_unet(xl)
    scheduler = EulerDiscreteScheduler.from_config(new_scheduler().config, prediction_type=prediction_type)
    parts = {"vae": vae, "text_encoder": CLIPTextModel(_text_config(tokenizer, 32)), "tokenizer": tokenizer}
    parts |= {"unet": unet, "scheduler": scheduler}
    if xl:
        second = CLIPTextModelWithProjection(_text_config(tokenizer, 64))
        pipeline = StableDiffusionXLPipeline(
            **parts, text_encoder_2=second, tokenizer_2=tokenizer, add_watermarker=False
        )
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.save_pretrained(path)
    return unet


def save_preview_vae(path: Path) -> None:
    """Write a tiny autoencoder that enlarges latents four times, as the base's does."""
    sizes = {f"{part}_block_out_channels": (8, 8, 8) for part in ("encoder", "decoder")}
    blocks = {f"num_{part}_blocks": (1, 1, 1) for part in ("encoder", "decoder")}
    AutoencoderTiny(**sizes, **blocks).save_pretrained(path)


def save_lora(path: Path, unet: UNet2DConditionModel, generator: torch.Generator) -> None:
    """Write a LoRA of rank 4 with an effect (peft's own start has none) and take it off the U-Net again."""
    targets = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "conv1", "conv2"]
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=targets), "default")
    tensors = get_peft_model_state_dict(unet, adapter_name="default")
    drawn = {name: torch.randn(t.shape, generator=generator) * 0.1 for name, t in tensors.items()}
    StableDiffusionXLPipeline.save_lora_weights(path, unet_lora_layers=drawn)
    unet.delete_adapters("default")


def save_adapter(path: Path, unet: UNet2DConditionModel, generator: torch.Generator) -> None:
    """Write an IP-Adapter-plus file for the U-Net; diffusers always opens four layers with heads of 64 channels."""
    text = unet.config.cross_attention_dim
    resampler = {"width": 64, "tokens": TOKENS, "layers": 4, "heads": 1, "head": 64, "output": text}
    sizes = replace(REDUCED, vision={"hidden_size": VISION}, resampler=resampler)
    tensors = {}
    for name, shape in adapter_shapes(sizes, cross_attentions(unet)).items():
        if len(shape) == 1:  # norms and biases
            tensors[name] = torch.full(shape, float(name.endswith("weight")))
        else:
            tensors[name] = torch.randn(shape, generator=generator) / shape[-1] ** 0.5
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path)


def save_image_encoder(path: Path) -> None:
    """Write a CLIP vision encoder for pictures of 64 pixels: 17 tokens of 32 numbers."""
    config = CLIPVisionConfig(**_clip(VISION), image_size=RESOLUTION, patch_size=16, projection_dim=32)
    CLIPVisionModelWithProjection(config).save_pretrained(path)


def save_scorer(path: Path) -> None:
    """Write a CLIP in open_clip's folder format."""
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": RESOLUTION, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {"context_length": 40, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    }
    path.mkdir(parents=True, exist_ok=True)
    normal = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": normal}))
    model = open_clip.CLIP(**config, output_dict=True)
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, path / "open_clip_model.safetensors")


def build_portraits(root: Path, people: int) -> Path:
    """Write three smooth bright pictures a person as portrait folders; the tiny detector sees a face in each."""
    generator = torch.Generator().manual_seed(0)
    for person in range(people):
        base = torch.rand(3, 6, 6, generator=generator)
        for photo in range(3):
            coarse = (base + 0.2 * torch.rand(3, 6, 6, generator=generator)).clamp(0.2, 1)
            pixels = torch.nn.functional.interpolate(coarse[None], size=(64, 64), mode="bicubic")[0].clamp(0, 1)
            path = root / f"{person:03d}" / f"{photo}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 255).byte().permute(1, 2, 0).numpy()).save(path, quality=95)
    return root


def build_tiny_world(root: Path, prediction_type: str = "v_prediction", xl: bool = True) -> Checkpoints:
    """Write every part below `root` and return the checkpoints that name them; the same bytes every time.

    The base is an SDXL, or a Stable Diffusion 1.5.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        unet = save_base(root / "base", prediction_type, xl)
        save_preview_vae(root / "preview_vae")
        save_image_encoder(root / "image_encoder")
        save_scorer(root / "clip")
        save_adapter(root / "adapter" / "ip-adapter.safetensors", unet, generator)
        save_lora(root / "lcm_lora", unet, generator)
    packs = build_face_packs(root / "faces" / "models")
    return Checkpoints(
        base=str(root / "base"),
        vae=None,
        preview_vae=str(root / "preview_vae"),
        fast_child=FastChild(source=str(root / "lcm_lora"), weight_name=LORA_FILE, timesteps=None),
        generator=Generator(
            pipeline=str(root / "base"),
            lora=Lora(source=str(root / "lcm_lora"), weight_name=LORA_FILE),
            resolution=RESOLUTION,
            scheduler="LCMScheduler",
            num_inference_steps=2,
            guidance_scale=0.0,
        ),
        adapter=Adapter(source=str(root / "adapter"), subfolder="", weight_name="ip-adapter.safetensors"),
        image_encoder=ImageEncoder(source=str(root / "image_encoder"), subfolder=""),
        faces=FacePacks(**packs, detection_size=64),
        scorer=Scorer(model=f"local-dir:{root / 'clip'}", pretrained=None),
        safety_checker=None,
        published_encoder=None,
        precision="float32",
        resolution=RESOLUTION,
    )


def with_bright_previews(world: Checkpoints, folder: Path) -> Checkpoints:
    """The world with a preview decoder, written to `folder`, in whose grey pictures the tiny detector sees a face.

    With random weights alone a tiny decoder draws nearly black ones.
    """
    decoder = AutoencoderTiny.from_pretrained(world.preview_vae)
    with torch.no_grad():
        decoder.decoder.layers[-1].bias += 0.5
    decoder.save_pretrained(folder)
    return world.model_copy(update={"preview_vae": str(folder)})


def alive(kind: type[nn.Module]) -> set[int]:
    """The networks of a kind that are in memory: the addresses of their first weights, as two may share them."""
    gc.collect()
    found = (one for one in gc.get_objects() if isinstance(one, kind))
    return {next(one.parameters()).data_ptr() for one in found if any(True for _ in one.parameters())}


ENCODING = Features(batch_size=4, max_evaluation_similarity=1.0)


def no_log(_metrics: object, _step: int) -> None:
    """Log nothing."""
