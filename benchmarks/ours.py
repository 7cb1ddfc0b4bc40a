"""This project's training step on random features and weights of the published shapes, and the levers of a row."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor, nn

from benchmarks.sdxl import LORA_TARGETS, Sizes, adapter_shapes, cross_attentions, iresnet
from lookahead.config import Preview
from lookahead.method.attention import KeysValues, appended
from lookahead.method.diffusion import NoiseSchedule
from lookahead.method.shared_pass import as_leaves, backward_through, drop_tokens
from lookahead.models.fast_child import child_at, switch_off
from lookahead.models.kv_encoder import KVEncoder, extend_self_attention, new_kv_encoder
from lookahead.models.recogniser import Recogniser
from lookahead.sampling.conditions import Condition, Prompt, Reference
from lookahead.training.data import Batch, NoiseDraw, generator_for
from lookahead.training.losses import encode_reference, noise_losses, preview_distances, preview_pixels
from lookahead.training.networks import Networks, compile_unets, enable_checkpointing, train_adapter_only
from lookahead.world import FAST_CHILD, device

KINDS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
PREVIEW = Preview(model="lcm", start="target", stepping="consistency", steps=1, gradient_steps=1, boundary=True)
ALPHA = 0.5  # alpha_LoRA
TOKEN_DROP = 0.05  # of appended tokens (official recipe)
WEIGHT = 1e-3  # of the lookahead loss (official recipe)
RANK = 4  # of the KV-encoder's LoRAs (official recipe)


@dataclass(frozen=True)
class Levers:
    """What a row switches: parts of the method, the way of training, and how it runs; None: as the run does."""

    lookahead: bool = True
    kv: bool = True
    share: bool = True
    checkpointing: bool = False
    channels_last: bool = False
    compiled: bool = False
    memory_budget: float = 1.0  # of activations, where compiled
    official: bool = False
    precision: str | None = None
    batch: int | None = None  # images a step, where it is not the run's

    @property
    def kind(self) -> torch.dtype:
        """bfloat16 on a GPU, float32 on a CPU, unless the row says otherwise."""
        return KINDS[self.precision or ("bfloat16" if device().type == "cuda" else "float32")]


def build(make: type[nn.Module], config: dict[str, object], kind: torch.dtype) -> nn.Module:
    """A frozen network with random weights, made in its number format on the device."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        with torch.device(device()):
            return make(**config).requires_grad_(False).eval()
    finally:
        torch.set_default_dtype(before)


def new_unet(sizes: Sizes, levers: Levers) -> UNet2DConditionModel:
    """A plain U-Net."""
    unet: UNet2DConditionModel = build(UNet2DConditionModel, sizes.unet, levers.kind)
    return unet.to(memory_format=torch.channels_last) if levers.channels_last else unet


def attach_adapter(unet: UNet2DConditionModel, sizes: Sizes) -> None:
    """Give the U-Net an IP-Adapter-plus of random weights, by what `pipe.load_ip_adapter` calls."""
    shapes = adapter_shapes(sizes, cross_attentions(unet))
    drawn = {name: torch.randn(shape, device=device(), dtype=unet.dtype) * 0.02 for name, shape in shapes.items()}
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, tensor in drawn.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    with torch.device(device()):
        unet._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
    unet.requires_grad_(False)


def child_config(sizes: Sizes) -> LoraConfig:
    """The LCM-LoRA's shape."""
    return LoraConfig(r=sizes.lora_rank, lora_alpha=sizes.lora_rank, target_modules=list(LORA_TARGETS))


def networks_of(
    sizes: Sizes, levers: Levers, unet: UNet2DConditionModel, kv: KVEncoder | None, bank: KeysValues
) -> Networks:
    """The training's networks around a U-Net; its fast child's layers are found by whoever has one."""
    recogniser = Recogniser(build(iresnet, sizes.recogniser, torch.float32), 127.5, 127.5)  # type: ignore[arg-type]
    side = sizes.side
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, device=device()) ** 2
    return Networks(
        unet=unet,
        child=[m for m in unet.modules() if FAST_CHILD in getattr(m, "scaling", {})],
        kv=kv,
        bank=bank,
        schedule=NoiseSchedule(torch.cumprod(1 - betas, 0), "epsilon"),
        preview_vae=build(AutoencoderTiny, {}, torch.float32),
        recogniser=recogniser.to(device()),
        detector=None,
        time_ids=torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32, device=device()),
        precision=levers.kind,
        previewed=None,
    )


def new_batch(sizes: Sizes, count: int) -> Batch:
    """Pairs of random features."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(count, *shape, device=device())

    def prompt() -> Prompt:
        return Prompt(draw(77, sizes.unet["cross_attention_dim"]), draw(sizes.text_2.get("projection_dim", 0)))

    latents = sizes.side // 8
    eyes = torch.tensor([[0.4, 0.45], [0.6, 0.45], [0.5, 0.55], [0.42, 0.65], [0.58, 0.65]], device=device())
    return Batch(
        rows=torch.arange(count),
        latents=draw(4, latents, latents),
        landmarks=(eyes * sizes.side).expand(count, 5, 2).contiguous(),
        condition=Condition(prompt(), draw(257, sizes.vision["hidden_size"])),
        reference=Reference(draw(4, latents, latents), prompt()),
        embeddings=nn.functional.normalize(draw(512), dim=1),
    )


def new_draw(batch: Batch) -> NoiseDraw:
    """A timestep and noise for each pair."""
    count = len(batch.latents)
    t = torch.randint(0, 1000, (count,), device=device())
    return NoiseDraw(t, torch.randn_like(batch.latents), torch.ones(count, device=device()))


def open_ours(sizes: Sizes, levers: Levers) -> Networks:
    """One copy of the frozen weights: the KV-encoder shares the U-Net's tensors, the child is a LoRA with a scale."""
    unet = new_unet(sizes, levers)
    kv = new_kv_encoder(unet, RANK, RANK, seed=0) if levers.kv else None
    unet.add_adapter(child_config(sizes), FAST_CHILD)
    attach_adapter(unet, sizes)
    networks = networks_of(sizes, levers, unet, kv, extend_self_attention(unet) if levers.kv else {})
    switch_off(networks.child)
    train_adapter_only(unet)
    unets = [unet] if kv is None else [unet, kv.unet]
    if levers.checkpointing:
        enable_checkpointing(unets, networks.preview_vae)
    if levers.compiled:
        compile_unets(unets, networks.child, levers.memory_budget, "inductor")
    return networks


class Ours:
    """Steps of one row, each from new draws."""

    def __init__(self, sizes: Sizes, batch: int, levers: Levers) -> None:
        self.networks, self.levers = open_ours(sizes, levers), levers
        self.batch = new_batch(sizes, batch)
        trained = [p for p in self.networks.unet.parameters() if p.requires_grad]
        trained += [] if self.networks.kv is None else list(self.networks.kv.parameters().values())
        self.optimiser = torch.optim.AdamW(trained, lr=1e-6, fused=True)

    def step(self, number: int) -> None:
        """Both losses, with one pass of the KV-encoder or two, and one optimiser step."""
        draw, generator = new_draw(self.batch), generator_for("benchmark", 0, number)
        keys_values = encode_reference(self.networks, self.batch, draw)
        leaves = as_leaves(keys_values)
        self._noise(draw, leaves, generator)
        if self.levers.lookahead and not self.levers.share:
            backward_through(keys_values, leaves)
            draw = replace(draw, t=draw.t.flip(0))
            keys_values = encode_reference(self.networks, self.batch, draw)
            leaves = as_leaves(keys_values)
        if self.levers.lookahead:
            self._lookahead(draw, leaves, generator)
        backward_through(keys_values, leaves)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def _noise(self, draw: NoiseDraw, leaves: KeysValues, generator: torch.Generator) -> None:
        with appended(self.networks.bank, drop_tokens(leaves, TOKEN_DROP, generator)):
            noise_losses(self.networks, self.batch, draw, self.batch.condition).mean().backward()

    def _lookahead(self, draw: NoiseDraw, leaves: KeysValues, generator: torch.Generator) -> None:
        with (
            child_at(self.networks.child, FAST_CHILD, ALPHA),
            appended(self.networks.bank, drop_tokens(leaves, TOKEN_DROP, generator)),
        ):
            pixels = preview_pixels(self.networks, self.batch, draw, PREVIEW, generator)
            distance, _ = preview_distances(self.networks, self.batch, pixels, "identity")
            (distance.mean() * ALPHA * WEIGHT).backward()
