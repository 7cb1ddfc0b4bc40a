"""A checkpoint in the authors' layout is converted, and gives their numbers: see `tests/official/__init__.py`."""

import hashlib
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.sdxl import FULL, UNET, VISION, adapter_shapes, cross_attentions
from lookahead.config import read_params, with_overrides
from lookahead.method.annealing import cosine_density
from lookahead.method.attention import KeysValues, appended
from lookahead.method.diffusion import NoiseSchedule, noise_loss
from lookahead.method.guidance import guided
from lookahead.method.preview import lcm_preview, with_boundary
from lookahead.models.adapter import ADAPTER_FILE, adapter_parameters
from lookahead.models.kv_encoder import KV_FILE, KVEncoder, extend_self_attention, open_kv_encoder
from lookahead.models.recogniser import TEMPLATE, similarity
from lookahead.pipeline.convert import Place, convert_tensors, places_of
from lookahead.sampling.conditions import Condition, Prompt
from lookahead.sampling.loop import predict
from tests.modules import ROOT

GOLDEN = load_file(Path(__file__).with_name("golden.safetensors"))
NAMES = "7fd5e3e6f37da049fb25f9154a504ee47e733f8536a99b7dac0c645557a17a83"  # SHA-256 of all names and shapes
TOLERANCE = 3e-4  # relative, in the Euclidean norm; what remains is the order of float32 sums
NARROW = UNET | {
    "sample_size": 16,
    "block_out_channels": (32, 64, 128),
    "attention_head_dim": (1, 1, 2),  # heads of 64, as diffusers reads it; no attention in the first block
}
RESAMPLER = {"width": 128, "tokens": 16, "layers": 4, "heads": 2, "head": 64, "output": 2048}
FIRST, MIDDLE, LAST = (
    "down_blocks.1.attentions.0.transformer_blocks.0",
    "mid_block.attentions.0.transformer_blocks.5",
    "up_blocks.1.attentions.2.transformer_blocks.1",
)
TIMESTEPS = (981, 401, 21)
Official = dict[str, Tensor]


def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
    """A weight by its name in the checkpoint, rounded to half precision."""
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
    if len(shape) == 1:
        numbers = 0.1 * numbers + float(name.endswith("weight"))
    else:
        numbers = numbers / math.sqrt(math.prod(shape[1:]))
    return numbers.half().float()


def given(name: str, *shape: int) -> Tensor:
    """An input."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))


def official(base: Mapping[str, Tensor], places: Mapping[str, Place]) -> Official:
    """The checkpoint: trained tensors, the frozen U-Net, copies of its projections, and second names."""
    tensors = {name: drawn(name, place.shape) for name, place in places.items()}
    tensors |= {f"encoder_unet.{name}": tensor for name, tensor in base.items()}
    for name in [name for name in tensors if ".attn1.to_k.weight" in name]:
        block = name.removesuffix(".attn1.to_k.weight")
        for projection in ("to_k", "to_v"):
            tensors[f"{block}.extract_kv1.{projection}.weight"] = tensors[f"{block}.attn1.{projection}.weight"]
        for number in (1, 2):
            own = {n: t for n, t in tensors.items() if n.startswith(f"{block}.attn{number}.")}
            alias = f"{block}.extract_kv{number}.source_attention_block."
            tensors |= {alias + n.removeprefix(f"{block}.attn{number}."): t for n, t in own.items()}
    return tensors


@dataclass(frozen=True)
class Ours:
    """The denoiser with the converted adapter, the converted KV-encoder, and what the denoiser's attention appends."""

    pipe: Any
    kv: KVEncoder
    bank: KeysValues
    checkpoint: Official

    def condition(self, row: int) -> Condition:
        """0 is the unconditional one."""
        prompt = Prompt(given("text", 2, 77, 2048)[row : row + 1], given("pooled", 2, 1280)[row : row + 1])
        return Condition(prompt, given("features", 2, 17, 128)[row : row + 1])

    def predictions(self, t: int, rows: tuple[int, ...] = (0, 1)) -> Tensor:
        noisy = given("noisy", 1, 4, 16, 16)
        return torch.cat(predict(self.pipe, noisy, torch.tensor(t), [self.condition(row) for row in rows]))

    def encoded(self, t: int) -> KeysValues:
        ids = torch.tensor([[128.0, 128, 0, 0, 128, 128]])
        added = {"text_embeds": given("portrait_pooled", 1, 1280), "time_ids": ids}
        reference, text = given("reference", 1, 4, 16, 16), given("portrait_text", 1, 77, 2048)
        return self.kv.encode(reference, torch.tensor([t]), text, added)

    def shared(self, t: int) -> Tensor:
        """Both predictions with shared keys and values."""
        both = {name: (k.repeat(2, 1, 1), v.repeat(2, 1, 1)) for name, (k, v) in self.encoded(t).items()}
        with appended(self.bank, both):
            return self.predictions(t)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ours]:
    """The checkpoint written, converted as the command does it, and opened."""
    root = tmp_path_factory.mktemp("official")
    with torch.device("meta"):
        empty = UNet2DConditionModel(**NARROW)
    base = {n: drawn(f"encoder_unet.{n}", tuple(t.shape)) for n, t in empty.state_dict().items()}
    empty.save_config(root / "base" / "unet")
    save_file(base, root / "base" / "unet" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    sizes = SimpleNamespace(resampler=RESAMPLER, vision=VISION | {"hidden_size": 128})
    shapes = adapter_shapes(sizes, cross_attentions(empty))  # type: ignore[arg-type]
    (root / "adapter").mkdir()
    save_file({n: torch.zeros(s) for n, s in shapes.items()}, root / "adapter" / "untuned.safetensors")
    row = read_params(ROOT / "params.yaml").worlds["miniature"].checkpoints
    adapter = {"source": str(root / "adapter"), "subfolder": "", "weight_name": "untuned.safetensors"}
    checkpoints = with_overrides(row, {"base": str(root / "base"), "adapter": adapter})
    ranks = {"encoder_unet.x.attn1.to_q.lora_layer.down.weight": torch.zeros(4, 1)}
    ranks |= {"encoder_unet.x.extract_kv1.to_k.lora_layer.down.weight": torch.zeros(4, 1)}
    checkpoint = official(base, places_of(ranks, checkpoints))
    torch.save(checkpoint, root / "model_ckpt.pt")
    convert_tensors(root / "model_ckpt.pt", checkpoints, root / "encoder")
    unet = UNet2DConditionModel.from_pretrained(root / "base", subfolder="unet")
    unet.requires_grad_(False)
    kv = open_kv_encoder(root / "encoder" / KV_FILE, unet)
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in load_file(root / "encoder" / ADAPTER_FILE).items():
        kind, _, rest = name.partition(".")
        parts[kind][rest] = tensor.float()
    unet._load_ip_adapter_weights([parts])
    yield Ours(SimpleNamespace(unet=unet, vae_scale_factor=8), kv, extend_self_attention(unet), checkpoint)


def close(found: Tensor, name: str) -> None:
    wanted = GOLDEN[name]
    assert found.shape == wanted.shape
    error = float((found - wanted).norm() / wanted.norm())
    print(f"| {name} | {tuple(wanted.shape)} | {error:.1e} |")  # noqa: T201  (`-s` shows it)
    assert error < TOLERANCE, f"{name}: {error:.1e}"


def test_the_checkpoint_has_the_official_names_and_shapes(ours):
    names = sorted((name, list(tensor.shape)) for name, tensor in ours.checkpoint.items())
    assert hashlib.sha256(json.dumps(names, separators=(",", ":")).encode()).hexdigest() == NAMES


@torch.no_grad()
def test_image_tokens(ours):
    tokens = ours.pipe.unet.encoder_hid_proj([given("features", 2, 17, 128).unsqueeze(1)])[0]
    close(tokens.squeeze(1)[:, :, ::32], "image_tokens")


@torch.no_grad()
def test_keys_and_values_of_the_first_a_middle_and_the_last_layer(ours):
    encoded = ours.encoded(401)
    for layer in (FIRST, MIDDLE, LAST):
        keys, values = encoded[f"{layer}.attn1"]
        close(keys[:, ::2], f"{layer}.keys")
        close(values[:, ::2], f"{layer}.values")


@torch.no_grad()
@pytest.mark.parametrize("t", TIMESTEPS)
def test_predictions_and_the_guided_one(ours, t):
    alone, shared = ours.predictions(t), ours.shared(t)
    close(alone, f"alone.{t}")
    close(shared, f"shared.{t}")
    scales = read_params(ROOT / "params.yaml").worlds["sdxl"].personalize.kv_guidance
    weights = [scales.image, scales.both, scales.kv]
    close(guided(alone[:1], [alone[1:], shared[1:], shared[:1]], weights), f"guided.{t}")


@torch.no_grad()
def test_freeu(ours):
    """The official guard leaves the first block as it is, which 1 does in diffusers'."""
    ours.pipe.unet.enable_freeu(s1=1.0, s2=0.2, b1=1.0, b2=1.1)
    try:
        close(ours.shared(401), "freeu.401")
    finally:
        ours.pipe.unet.disable_freeu()


def test_the_step_of_the_fast_child_with_its_boundary():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    schedule = NoiseSchedule((1 - betas).cumprod(0), "epsilon")
    t = torch.tensor([0, 1, 7, 49, 199, 499, 801, 999])
    noisy, prediction = (given(name, 1, 4, 16, 16).expand(len(t), -1, -1, -1) for name in ("noisy", "target"))
    close(with_boundary(noisy, lcm_preview(schedule, noisy, prediction, t), t), "lcm_step")


@pytest.mark.parametrize(("name", "strength"), [("density_noise", 0.5), ("density_lookahead", 0.2)])
def test_densities_of_timesteps(name, strength):
    settings = read_params(ROOT / "params.yaml").worlds["sdxl"].train
    density = settings.noise_density if name == "density_noise" else settings.lookahead.density
    assert (density.kind, density.strength) == ("cosine", strength)
    close(cosine_density(strength, 1000)[::10], name)


def test_the_alignment_differs_by_its_template():
    """Theirs has the second eye a pixel further left, and fits from the template to the picture."""
    landmarks = 3 * (torch.tensor(TEMPLATE) + 0.5 * given("landmarks", 20, 5, 2)).double() + 40
    ones = torch.ones(4, 1, dtype=torch.float64)
    corners = torch.tensor([[0, 0], [111, 0], [0, 111], [111, 111]], dtype=torch.float64)

    def apart(template: tuple[tuple[float, float], ...]) -> float:
        a, b = similarity(landmarks, torch.tensor(template, dtype=torch.float64)[None])
        turn = torch.stack([torch.cat([a.real, -a.imag, b.real], 1), torch.cat([a.imag, a.real, b.imag], 1)], 1)
        last = torch.tensor([[[0.0, 0.0, 1.0]]], dtype=torch.float64).expand(len(turn), -1, -1)
        picture = torch.cat([corners, ones], 1) @ torch.cat([GOLDEN["alignment"], last], 1).inverse().mT
        return float((picture @ turn.mT - corners).norm(dim=2).mean())

    arcface, theirs = apart(TEMPLATE), apart((TEMPLATE[0], (72.5318, 51.5014), *TEMPLATE[2:]))
    print(f"| crops apart, in pixels; with the official template | {arcface:.2f} | {theirs:.2f} |")  # noqa: T201
    assert theirs < 0.1 < 0.5 < arcface < 1.0  # pixels of 112


def test_gradients_of_the_noise_loss_on_adapter_and_loras(ours):
    adapter, loras = adapter_parameters(ours.pipe.unet), ours.kv.parameters()
    for parameter in adapter.values():
        parameter.requires_grad_(True)
    shared = ours.encoded(401)
    with appended(ours.bank, shared):
        loss = noise_loss(ours.predictions(401, rows=(1,)), given("target", 1, 4, 16, 16)).mean()
        loss.backward()
    close(loss.detach()[None], "noise_loss")
    middle, first = MIDDLE.replace(".", "/"), FIRST.replace(".", "/")
    found = {
        f"encoder_unet.{MIDDLE}.attn1.to_q.lora_layer.down.weight": loras[
            f"unet.{MIDDLE}.attn1.to_q.lora_A.kv_encoder.weight"
        ],
        f"encoder_unet.{FIRST}.attn2.to_out.0.lora_layer.up.weight": loras[
            f"unet.{FIRST}.attn2.to_out.0.lora_B.kv_encoder.weight"
        ],
        f"encoder_unet.{MIDDLE}.extract_kv1.to_k.lora_layer.up.weight": loras[f"shared.{middle}/attn1.0.up.weight"],
        f"encoder_unet.{FIRST}.extract_kv1.to_v.lora_layer.down.weight": loras[f"shared.{first}/attn1.1.down.weight"],
        "image_proj_model.proj_out.bias": adapter["image_projection.proj_out.bias"],
        "image_proj_model.layers.2.0.norm1.weight": adapter["image_projection.layers.2.ln0.weight"],
    }
    for name, parameter in found.items():
        close(parameter.grad, f"gradient.{name}")
    keys = adapter[f"{MIDDLE}.attn2.processor.to_k_ip.0.weight"]
    close(keys.grad[:, ::64], f"gradient.encoder_unet.{MIDDLE}.extract_kv2.to_k.weight")


def test_the_full_size_differs_in_widths_alone():
    assert {name for name in FULL.unet if FULL.unet[name] != NARROW[name]} == {
        *("sample_size", "block_out_channels", "attention_head_dim"),
    }
