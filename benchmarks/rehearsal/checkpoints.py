"""Repositories as the hub has them: published names, shapes, number formats and configurations, and random weights."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from benchmarks.rehearsal import MANIFEST, UNOPENED
from benchmarks.rehearsal.faces import write_pack
from benchmarks.sdxl import FULL, LORA_TARGETS, REDUCED, SD15, Sizes, adapter_shapes, cross_attentions
from lookahead.config import Checkpoints
from lookahead.world.hub import Part, parts

SMALL = Sizes(  # every layer's kind, narrowed
    unet={"sample_size": 16, "block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 64},
    vae=SD15.vae | {"block_out_channels": (32, 32, 32, 32)},
    text=SD15.text | {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2},
    text_2={},
    vision=SD15.vision
    | {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2}
    | {"num_attention_heads": 2, "projection_dim": 32},
    resampler={"width": 64, "tokens": 16, "layers": 4, "heads": 1, "head": 64, "output": 64},
    recogniser={"widths": (8, 16, 32, 64), "blocks": (1, 1, 2, 1)},
    lora_rank=4,
    side=128,
)
SIZES = {("sd15", False): SD15, ("sd15", True): SMALL, ("sdxl", False): FULL, ("sdxl", True): REDUCED}
_SHARED = {  # of model_index.json
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
INDEX: dict[str, Any] = _SHARED | {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.6.0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
}
INDEX_XL: dict[str, Any] = _SHARED | {
    "_class_name": "StableDiffusionXLPipeline",
    "_diffusers_version": "0.19.0.dev0",
    "force_zeros_for_empty_prompt": True,
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
}
MARKS = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
Shapes = Mapping[str, tuple[int, ...]]


def drawn(shapes: Shapes, half: bool, gain: float = 1.0) -> dict[str, Tensor]:
    """Random matrices and kernels that keep the size of what passes through them; norms and biases as they begin."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, shape in shapes.items():
        if name.endswith("position_ids"):
            tensors[name] = torch.arange(shape[-1])[None]
            continue
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(0)
            continue
        if name.endswith(".alpha"):
            tensor = torch.tensor(8.0)
        elif len(shape) < 2:
            tensor = torch.full(shape, float(name.endswith(("weight", "running_var", "logit_scale"))))
        else:
            tensor = torch.randn(shape, generator=generator).mul_(gain / math.sqrt(math.prod(shape[1:])))
        tensors[name] = tensor.half() if half else tensor
    return tensors


def shapes_of(build: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's tensors, without its memory."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build().state_dict().items()}


def lora_shapes(unet: nn.Module, rank: int) -> dict[str, tuple[int, ...]]:
    """The tensors of an LCM-LoRA in kohya's naming."""
    ends, shapes = tuple(f".{target}" for target in LORA_TARGETS), dict[str, tuple[int, ...]]()
    for name, module in unet.named_modules():
        if name.endswith(ends) and hasattr(module, "weight"):
            stem, (out, into, *kernel) = "lora_unet_" + name.replace(".", "_"), module.weight.shape
            shapes[f"{stem}.lora_down.weight"] = (rank, into, *kernel)
            shapes[f"{stem}.lora_up.weight"] = (out, rank, *[1] * len(kernel))
            shapes[f"{stem}.alpha"] = ()
    return shapes


def tokenizer_files(padding: str) -> dict[str, str]:
    """CLIP's vocabulary and merges, as open_clip brings them along, and a pad token."""
    path = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    letters = list(open_clip.tokenizer.bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(merge.split()) for merge in merges)]
    vocabulary = {word: number for number, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    marks = MARKS | {"pad_token": padding}
    settings = marks | {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "do_lower_case": True}
    return {
        "vocab.json": json.dumps(vocabulary),
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]),
        "special_tokens_map.json": json.dumps(marks),
        "tokenizer_config.json": json.dumps(settings),
    }


@dataclass
class Origin:
    """A folder of repositories and face packs, each file with its SHA-256; what is written already is kept."""

    root: Path
    sizes: Sizes
    files: dict[str, str] = field(default_factory=dict)  # SHA-256 by owner/name/path

    def __post_init__(self) -> None:
        """Read what an earlier run wrote."""
        path = self.root / MANIFEST
        self.files = json.loads(path.read_bytes()) if path.is_file() else {}

    def put(self, name: str, write: Callable[[Path], object]) -> None:
        """Write a file, unless it is there."""
        path = self.root / name
        if name in self.files:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        with path.open("rb") as file:
            self.files[name] = hashlib.file_digest(file, "sha256").hexdigest()
        (self.root / MANIFEST).write_text(json.dumps(self.files, indent=1), encoding="utf-8")

    def text(self, name: str, content: str) -> None:
        """Write a text."""
        self.put(name, lambda path: path.write_text(content, encoding="utf-8"))

    def weights(self, name: str, shapes: Callable[[], Shapes], half: bool, gain: float = 1.0) -> None:
        """Write random weights."""
        self.put(name, lambda path: save_file(drawn(shapes(), half, gain), path, {"format": "pt"}))

    def unet(self) -> UNet2DConditionModel:
        """The U-Net without its memory."""
        with torch.device("meta"):
            return UNet2DConditionModel(**self.sizes.unet)

    def model(self, stem: str, build: Callable[[], Any], file: str, half: bool, more: Shapes | None = None) -> None:
        """Write a model of diffusers or transformers: its configuration and its weights, `more` buffers before them."""
        with torch.device("meta"):
            network = build()
        described = network if hasattr(network, "to_json_string") else network.config  # diffusers, transformers
        self.text(f"{stem}config.json", described.to_json_string())
        self.weights(f"{stem}{file}", lambda: {**(more or {}), **shapes_of(build)}, half)

    def pipeline(self, part: Part) -> None:
        """Write Stable Diffusion 1.5 or XL in half precision."""
        repository, sizes, diffusers = part.source, self.sizes, "diffusion_pytorch_model.fp16.safetensors"
        schedule: dict[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
        scheduler: Any = PNDMScheduler(**schedule, skip_prk_steps=True, steps_offset=1)
        if sizes.text_2:
            kind: Any = EulerAncestralDiscreteScheduler if part.name == "generator.pipeline" else EulerDiscreteScheduler
            scheduler = kind(**schedule, steps_offset=1)
        index = (INDEX_XL if sizes.text_2 else INDEX) | {"scheduler": ["diffusers", type(scheduler).__name__]}
        self.text(f"{repository}/model_index.json", json.dumps(index))
        self.text(f"{repository}/scheduler/scheduler_config.json", scheduler.to_json_string())
        self.model(f"{repository}/unet/", lambda: UNet2DConditionModel(**sizes.unet), diffusers, half=True)
        self.model(f"{repository}/vae/", lambda: AutoencoderKL(**sizes.vae), diffusers, half=True)
        self.text_encoder(f"{repository}/text_encoder/", CLIPTextModel, sizes.text)
        self.tokenizer(f"{repository}/tokenizer", "<|endoftext|>")
        if sizes.text_2:
            self.text_encoder(f"{repository}/text_encoder_2/", CLIPTextModelWithProjection, sizes.text_2)
            self.tokenizer(f"{repository}/tokenizer_2", "!")
        else:
            self.text(f"{repository}/feature_extractor/preprocessor_config.json", "{}")
        for name in UNOPENED:
            if sizes.text_2 and name.startswith("safety_checker"):
                continue  # XL has none
            self.text(f"{repository}/{name}", "not opened by anybody")

    def tokenizer(self, stem: str, padding: str) -> None:
        """Write a tokenizer."""
        for name, content in tokenizer_files(padding).items():
            self.text(f"{stem}/{name}", content)

    def text_encoder(self, stem: str, kind: Callable[[CLIPTextConfig], nn.Module], shape: dict[str, Any]) -> None:
        """Write a CLIP text encoder under its published names."""
        config = CLIPTextConfig(**shape)
        self.text(f"{stem}config.json", config.to_json_string())

        def shapes() -> Shapes:
            found: dict[str, tuple[int, ...]] = {
                "text_model.embeddings.position_ids": (1, config.max_position_embeddings)
            }
            for name, shape in shapes_of(lambda: kind(config)).items():
                inner = "" if name.startswith(("text_model.", "text_projection.")) else "text_model."
                found[inner + name] = shape
            return found

        self.weights(f"{stem}model.fp16.safetensors", shapes, half=True)

    def scorer(self, part: Part, name: str) -> None:
        """Write open_clip's text-image scorer."""
        config = open_clip.get_model_config(name)
        normal = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
        self.text(f"{part.source}/open_clip_config.json", json.dumps({"model_cfg": config, "preprocess_cfg": normal}))
        self.weights(f"{part.source}/{part.files[0]}", lambda: shapes_of(lambda: open_clip.CLIP(**config)), half=False)

    def image_encoder(self, part: Part) -> None:
        """Write the CLIP vision encoder."""
        config, *_ = part.files
        vision, stem = CLIPVisionConfig(**self.sizes.vision), f"{part.source}/{Path(config).parent.as_posix()}/"
        positions = {"vision_model.embeddings.position_ids": (1, (vision.image_size // vision.patch_size) ** 2 + 1)}
        self.model(stem, lambda: CLIPVisionModelWithProjection(vision), "model.safetensors", False, positions)

    def write(self, part: Part, checkpoints: Checkpoints) -> None:
        """Write the files that a part is opened from."""
        stem, sizes, file = f"{part.source}/", self.sizes, "diffusion_pytorch_model.safetensors"
        if part.kind == "pack":
            write_pack(part.source, self, sizes.recogniser, checkpoints.faces.detection_size)
        elif part.name in ("base", "generator.pipeline"):
            self.pipeline(part)
        elif part.name == "vae":
            self.model(stem, lambda: AutoencoderKL(**sizes.vae), file, half=False)
        elif part.name == "preview_vae":
            self.model(stem, AutoencoderTiny, file, half=False)
        elif part.name == "adapter":
            self.weights(stem + part.files[0], lambda: adapter_shapes(sizes, cross_attentions(self.unet())), half=True)
        elif part.name == "image_encoder":
            self.image_encoder(part)
        elif part.name == "scorer":
            self.scorer(part, checkpoints.scorer.model)
        else:  # a LoRA, weak enough to leave the base recognisable
            self.weights(stem + part.files[0], lambda: lora_shapes(self.unet(), sizes.lora_rank), True, gain=0.3)


def build(root: Path, checkpoints: Checkpoints, sizes: Sizes) -> int:
    """Write whatever a world would download, and return its bytes."""
    origin = Origin(root, sizes)
    for part in parts(checkpoints):
        if part.kind != "folder":
            origin.write(part, checkpoints)
    return sum((root / name).stat().st_size for name in origin.files)
