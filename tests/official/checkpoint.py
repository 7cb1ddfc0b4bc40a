"""The checkpoint of the golden values, written, converted as the command does it, and opened."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.sdxl import LORA_TARGETS, UNET, VISION, adapter_shapes, cross_attentions
from lookahead.config import read_params, with_overrides
from lookahead.method.attention import KeysValues, appended
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.models.fast_child import lora_layers, switch_off
from lookahead.models.kv_encoder import KV_FILE, KVEncoder, extend_self_attention, open_kv_encoder
from lookahead.pipeline.convert import Place, convert_tensors, places_of
from lookahead.sampling.conditions import Condition, Prompt
from lookahead.sampling.loop import predict
from lookahead.world import FAST_CHILD
from tests.modules import ROOT

GOLDEN = load_file(Path(__file__).with_name("golden.safetensors"))
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
    """The denoiser with the converted adapter and a fast child, the converted KV-encoder, what attention appends."""

    pipe: Any
    kv: KVEncoder
    child: list[LoraLayer]  # the denoiser's layers with the fast child, off
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


def attach_child(unet: Any) -> list[LoraLayer]:
    """An LCM-LoRA of rank 4 on all layers that the published one has, its weights by their names, off."""
    unet.add_adapter(LoraConfig(r=4, lora_alpha=4, target_modules=list(LORA_TARGETS)), FAST_CHILD)
    layers = {name: module for name, module in unet.named_modules() if isinstance(module, LoraLayer)}
    for name, layer in layers.items():
        down, up = layer.lora_A[FAST_CHILD].weight, layer.lora_B[FAST_CHILD].weight
        down.data = drawn(f"fast_child.{name}.down", tuple(down.shape))
        up.data = drawn(f"fast_child.{name}.up", tuple(up.shape[:2])).view_as(up)
    found = lora_layers(unet, FAST_CHILD)
    switch_off(found)
    return found


def open_ours(root: Path) -> Ours:
    """Write the checkpoint and its base below a folder, convert it, and open what the conversion gave."""
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
    kv = open_kv_encoder(root / "encoder" / KV_FILE, unet)
    child = attach_child(unet)
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in load_file(root / "encoder" / ADAPTER_FILE).items():
        kind, _, rest = name.partition(".")
        parts[kind][rest] = tensor.float()
    unet._load_ip_adapter_weights([parts])
    unet.requires_grad_(False)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    scheduler = SimpleNamespace(alphas_cumprod=(1 - betas).cumprod(0))
    pipe = SimpleNamespace(unet=unet, vae_scale_factor=8, scheduler=scheduler)
    return Ours(pipe, kv, child, extend_self_attention(unet), checkpoint)


def close(found: Tensor, name: str) -> None:
    """Compare with the official value of this name, and print a row of docs/parity.md (`-s` shows it)."""
    wanted = GOLDEN[name]
    assert found.shape == wanted.shape
    error = float((found - wanted).norm() / wanted.norm())
    print(f"| {name} | {tuple(wanted.shape)} | {error:.1e} |")  # noqa: T201
    assert error < TOLERANCE, f"{name}: {error:.1e}"
