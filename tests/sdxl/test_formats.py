"""The published formats without the published weights: the real files' sizes, and real structure, narrowed.

Each size was read in November 2026 in at least two public repositories that list the hub's files and do not copy each
other: their downloaders compare sizes and SHA-256.
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from benchmarks.sdxl import FULL, LORA_TARGETS, REDUCED, SD15, Sizes, adapter_shapes, cross_attentions
from lookahead import world
from lookahead.config import Checkpoints, with_overrides
from lookahead.method.lora_scale import lora_scale
from lookahead.models.fast_child import lora_layers
from lookahead.world.hub import part, parts
from miniature.encoders import build_tokenizer
from tests.tiny import LORA_FILE

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

Shapes = Mapping[str, tuple[int, ...]]
WIDTH = {"F16": 2, "F32": 4, "I64": 8}
T = TypeVar("T")
WORLDS = {"sdxl": FULL, "sd15": SD15}
UNET_PARAMETERS = {"sdxl": 2_567_463_684, "sd15": 859_520_964}  # as several trainers log them
LORA_MODULES = {"sdxl": 788, "sd15": 278}
CROSS_ATTENTIONS = {"sdxl": 70, "sd15": 16}  # transformer blocks
POSITIONS = {  # buffers that older versions of transformers wrote
    ("sdxl", "image_encoder"): {"vision_model.embeddings.position_ids": (1, 257)},
    ("sd15", "text"): {"text_model.embeddings.position_ids": (1, 77)},
}


def data_bytes(shapes: Shapes, kind: str) -> int:
    """Bytes of these tensors in one number format."""
    return sum(math.prod(shape) for shape in shapes.values()) * WIDTH[kind]


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
    """A module's name in kohya's LoRA files."""
    return "lora_unet_" + module.replace(".", "_")


def unet_of(sizes: Sizes) -> UNet2DConditionModel:
    return UNet2DConditionModel(**sizes.unet)


def adapted(unet: nn.Module) -> dict[str, nn.Module]:
    """The modules that LCM-LoRA adapts, by name."""
    ends = tuple(f".{target}" for target in LORA_TARGETS)
    return {name: module for name, module in unet.named_modules() if name.endswith(ends) and hasattr(module, "weight")}


def lora_shapes(unet: nn.Module, rank: int) -> dict[str, tuple[int, ...]]:
    """The tensors of a LoRA in kohya's naming."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in adapted(unet).items():
        out, into, *kernel = module.weight.shape
        shapes[f"{kohya(name)}.lora_down.weight"] = (rank, into, *kernel)
        shapes[f"{kohya(name)}.lora_up.weight"] = (out, rank, *[1] * len(kernel))
        shapes[f"{kohya(name)}.alpha"] = ()
    return shapes


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def full_unets() -> dict[str, UNet2DConditionModel]:
    """The U-Nets of SDXL and Stable Diffusion 1.5 without memory."""
    with torch.device("meta"):
        return {name: unet_of(sizes) for name, sizes in WORLDS.items()}


@pytest.fixture
def full_unet(full_unets: dict[str, UNet2DConditionModel]) -> UNet2DConditionModel:
    return full_unets["sdxl"]


def full_shapes(name: str, sizes: Sizes, unet: UNet2DConditionModel) -> Shapes:
    """Names and shapes of every tensor of a published file, from its configuration."""
    if name == "adapter":
        return adapter_shapes(sizes, cross_attentions(unet))
    if name == "fast_child":
        return lora_shapes(unet, sizes.lora_rank)
    build: dict[str, Callable[[], nn.Module]] = {
        "unet": lambda: unet,
        "text": lambda: CLIPTextModel(CLIPTextConfig(**sizes.text)),
        "text_2": lambda: CLIPTextModelWithProjection(CLIPTextConfig(**sizes.text_2)),
        "vae": lambda: AutoencoderKL(**sizes.vae),
        "base_vae": lambda: AutoencoderKL(**sizes.vae),
        "preview_vae": AutoencoderTiny,
        "image_encoder": lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**sizes.vision)),
    }
    with torch.device("meta"):
        found = shapes_of(build[name]())
    return published_names(found) if name == "text" else found


def published_names(tensors: Mapping[str, T]) -> dict[str, T]:
    """A text encoder's tensors as the hub names them; transformers 5 leaves the first word out."""
    return {f"text_model.{name.removeprefix('text_model.')}": tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("world", WORLDS)
def test_the_unet_has_the_published_number_of_parameters(world, full_unets):
    unet = full_unets[world]
    assert sum(parameter.numel() for parameter in unet.parameters()) == UNET_PARAMETERS[world]
    assert len(adapted(unet)) == LORA_MODULES[world]
    assert len(cross_attentions(unet)) == CROSS_ATTENTIONS[world]


HALF = {"unet", "base_vae", "text", "text_2", "adapter", "fast_child"}
UNKNOWN = {"vae": 1, "fast_child": 640}  # bytes of metadata at most, which the sources do not tell


@pytest.mark.parametrize("published", BYTES)
def test_names_shapes_and_format_fill_the_published_file_to_the_byte(published, full_unets):
    """A safetensors file is its tensors and a header that spells every name, shape and offset."""
    world, name = published
    shapes, kind = full_shapes(name, WORLDS[world], full_unets[world]), "F16" if name in HALF else "F32"
    before = POSITIONS.get(published, {})
    left = BYTES[published] - data_bytes(shapes, kind) - data_bytes(before, "I64") - 8
    unpadded = {header_bytes(shapes, kind, metadata, before) for metadata in ({}, {"format": "pt"})}
    lengths = {length + extra for length in unpadded for extra in range(UNKNOWN.get(name, 0) + 1)}
    assert left in lengths | {-(-length // 8) * 8 for length in lengths}  # newer files are padded to 8 bytes


def random_half(shapes: Shapes, generator: torch.Generator) -> dict[str, Tensor]:
    return {name: torch.randn(shape, generator=generator).mul(0.05).half() for name, shape in shapes.items()}


def write_pipeline(folder: Path, scheduler: EulerDiscreteScheduler | EulerAncestralDiscreteScheduler) -> None:
    """A repository such as SDXL's: half-precision weights, names as published, SDXL's noise schedule."""
    tokenizer = build_tokenizer(folder / "tokenizer")
    pipe = StableDiffusionXLPipeline(
        vae=AutoencoderKL(**REDUCED.vae),
        text_encoder=CLIPTextModel(CLIPTextConfig(**REDUCED.text)),
        text_encoder_2=CLIPTextModelWithProjection(CLIPTextConfig(**REDUCED.text_2)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet_of(REDUCED),
        scheduler=scheduler,
        add_watermarker=False,
    )
    pipe.to(torch.float16).save_pretrained(folder, variant="fp16")
    text = folder / "text_encoder" / "model.fp16.safetensors"
    save_file(published_names(load_file(text)), text, {"format": "pt"})


def write_child(path: Path) -> None:
    """An LCM-LoRA with an effect and alpha = rank / 2, in kohya's naming as published."""
    drawn = random_half(lora_shapes(unet_of(REDUCED), REDUCED.lora_rank), torch.Generator().manual_seed(1))
    alpha = torch.tensor(REDUCED.lora_rank / 2).half()
    save_file({name: alpha.clone() if name.endswith("alpha") else tensor for name, tensor in drawn.items()}, path)


@pytest.fixture(scope="module")
def reduced(sdxl: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoints, Path]:
    """The row `sdxl` of params.yaml, its repositories in a cache of the hub with real structure at reduced width."""
    row, cache = with_overrides(sdxl, {"precision": "bfloat16"}), tmp_path_factory.mktemp("hub")  # as on a GPU

    def at(source: str) -> Path:
        repository, commit = source.split(":")[0].split("@")
        folder = cache / f"models--{repository.replace('/', '--')}" / "snapshots" / commit
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    with torch.random.fork_rng():
        torch.manual_seed(0)
        schedule = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
        write_pipeline(at(row.base), EulerDiscreteScheduler(**schedule, prediction_type="epsilon"))
        write_pipeline(at(row.generator.pipeline), EulerAncestralDiscreteScheduler(**schedule))
        AutoencoderKL(**REDUCED.vae).save_pretrained(at(row.vae or ""))
        AutoencoderTiny().save_pretrained(at(row.preview_vae))
        vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**REDUCED.vision))
        vision.save_pretrained(at(row.image_encoder.source) / row.image_encoder.subfolder)
    write_child(at(row.fast_child.source) / LORA_FILE)
    shapes = adapter_shapes(REDUCED, cross_attentions(unet_of(REDUCED)))
    folder = at(row.adapter.source) / row.adapter.subfolder
    folder.mkdir()
    save_file(random_half(shapes, torch.Generator().manual_seed(2)), folder / row.adapter.weight_name)
    return row, cache


@pytest.fixture
def row(reduced: tuple[Checkpoints, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoints:
    """The row, with that cache as the hub's."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(reduced[1]))
    monkeypatch.setenv("HOME", str(tmp_path))
    return reduced[0]


@torch.no_grad()
def prediction(pipe: world.Pipeline, image: bool) -> Tensor:
    """The U-Net's answer to fixed inputs."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(pipe.unet.dtype)

    added = {"text_embeds": draw(1, REDUCED.text_2["projection_dim"])}
    added |= {"time_ids": torch.tensor([[256.0, 256, 0, 0, 256, 256]]).to(pipe.unet.dtype)}
    added |= {"image_embeds": [draw(1, 1, 257, REDUCED.vision["hidden_size"])]} if image else {}
    tokens = draw(1, 77, REDUCED.unet["cross_attention_dim"])
    return pipe.unet(draw(1, 4, 16, 16), torch.tensor(500), tokens, added_cond_kwargs=added).sample.float()


def test_the_base_opens_in_bfloat16_with_the_names_of_the_full_one(row, full_unet):
    missing = [part.name for part in parts(row) if part.missing()]
    assert missing == ["scorer", "faces.loss", "faces.select", "faces.report"]
    pipe = world.open_pipeline(row)
    assert {module.dtype for module in (pipe.unet, pipe.vae, pipe.text_encoder_2)} == {torch.bfloat16}
    assert pipe.scheduler.config.prediction_type == "epsilon"
    assert pipe.vae.config.scaling_factor == 0.13025 and not pipe.vae.config.force_upcast
    ours, theirs = shapes_of(pipe.unet), shapes_of(full_unet)
    blocks = {name.split(".transformer_blocks")[0] for name in theirs}
    assert {name.split(".transformer_blocks")[0] for name in ours} == blocks  # all but some transformer blocks
    assert {name: len(shape) for name, shape in ours.items()} == {name: len(theirs[name]) for name in ours}


def test_no_text_encoder_starts_from_chance_and_the_vae_comes_from_its_own_repository(row, reduced):
    """The names of the hub's files reach every parameter."""
    (base,) = reduced[1].glob("models--stabilityai--stable-diffusion-xl-base-1.0/snapshots/*")
    pipe = world.open_pipeline(row)
    for name, encoder in (("text_encoder", pipe.text_encoder), ("text_encoder_2", pipe.text_encoder_2)):
        written = load_file(base / name / "model.fp16.safetensors")
        opened = encoder.state_dict() if name == "text_encoder_2" else published_names(encoder.state_dict())
        assert set(opened) == set(written)
        assert all(torch.equal(opened[key], tensor.bfloat16()) for key, tensor in written.items())
    (vae,) = reduced[1].glob("models--madebyollin--sdxl-vae*/snapshots/*")
    theirs = AutoencoderKL.from_pretrained(vae).state_dict()["encoder.conv_in.weight"]
    torch.testing.assert_close(pipe.vae.encoder.conv_in.weight, theirs.bfloat16())


def test_generator_preview_decoder_and_image_encoder_open(row):
    assert isinstance(world.open_generator(row).scheduler, EulerAncestralDiscreteScheduler)
    decoder = world.open_preview_vae(row)
    assert decoder.dtype is torch.float32 and decoder.config.scaling_factor == 1.0
    assert decoder.decode(torch.zeros(1, 4, 4, 4)).sample.shape == (1, 3, 32, 32)
    encoder, processor = world.open_image_encoder(row)
    assert processor.crop_size["height"] == 224
    features = encoder(torch.zeros(1, 3, 224, 224, dtype=encoder.dtype), output_hidden_states=True).hidden_states[-2]
    assert features.shape == (1, 257, REDUCED.vision["hidden_size"])


def test_the_fast_child_opens_on_every_module_that_it_was_published_for(row):
    """Off; at strength 1 it adds up * down * alpha / rank."""
    plain = row.model_copy(update={"precision": "float32"})
    pipe = world.open_pipeline(plain)
    base, modules = prediction(pipe, image=False), adapted(pipe.unet)
    world.attach_fast_child(pipe, plain)
    torch.testing.assert_close(prediction(pipe, image=False), base)
    layers, written = lora_layers(pipe.unet, world.FAST_CHILD), load_file(part("fast_child", row).folder() / LORA_FILE)
    assert len(layers) == len(modules)
    with torch.no_grad(), lora_scale(layers, world.FAST_CHILD, 1.0):
        assert (prediction(pipe, image=False) - base).abs().mean() > 1e-3
        for name in modules:
            up, down = (written[f"{kohya(name)}.lora_{half}.weight"].float().flatten(1) for half in ("up", "down"))
            delta = pipe.unet.get_submodule(name).get_delta_weight(world.FAST_CHILD)
            torch.testing.assert_close(delta.flatten(1), up @ down / 2)


def test_the_adapter_opens_after_the_fast_child_with_sixteen_tokens(row):
    pipe = world.open_denoiser(row)
    world.attach_fast_child(pipe, row)
    world.attach_adapter(pipe, row)
    (projection,) = pipe.unet.encoder_hid_proj.image_projection_layers
    assert projection(torch.zeros(1, 257, 128, dtype=torch.bfloat16)).shape == (1, 16, 192)
    assert prediction(pipe, image=True).isfinite().all()
