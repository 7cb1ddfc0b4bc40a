"""The same work the official way, written anew from its description (docs/sdxl.md): no line is theirs."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from benchmarks import ours
from benchmarks.ours import Levers
from benchmarks.sdxl import Sizes
from lookahead.method.attention import appended
from lookahead.method.shared_pass import drop_tokens
from lookahead.models.kv_encoder import extend_self_attention, new_kv_encoder
from lookahead.sampling.conditions import Condition, Prompt, Reference
from lookahead.training.data import Batch, generator_for
from lookahead.training.losses import encode_reference, noise_losses, preview_distances, preview_pixels
from lookahead.training.networks import Networks, train_adapter_only
from lookahead.world import FAST_CHILD, device, encode_latents

RELOAD = 5  # steps for which alpha_LoRA stays (official recipe)


class Detector(nn.Module):
    """MTCNN's three networks on a pyramid: a small one everywhere, two on a fixed number of crops; random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.everywhere = _convolutions((3, 10, 16, 32), pool=1)
        self.refine = nn.Sequential(_convolutions((3, 28, 48, 64), pool=2), nn.Flatten(), nn.Linear(64 * 6 * 6, 128))
        self.last = nn.Sequential(
            _convolutions((3, 32, 64, 64, 128), pool=2), nn.Flatten(), nn.Linear(128 * 12 * 12, 256)
        )

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """Scores of 16 crops a picture, on the CPU, where boxes are merged: (B * 16,)."""
        picture = pixels
        while min(picture.shape[-2:]) >= 12:
            self.everywhere(picture).amax().cpu()  # the boxes of a scale are read by the processor
            picture = nn.functional.interpolate(picture, scale_factor=0.709, mode="area")
        for network, count, side in ((self.refine, 64, 24), (self.last, 16, 48)):
            crops = nn.functional.interpolate(pixels, (side, side), mode="area").repeat_interleave(count, 0)
            scores: Tensor = network(crops).mean(1).cpu()
        return scores


def _convolutions(widths: tuple[int, ...], pool: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number, (before, after) in enumerate(pairwise(widths)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.PReLU(after)]
        if number < pool:
            layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


class Encoders:
    """VAE, both text encoders and the vision encoder, in the loop: they encode every step's batch anew."""

    def __init__(self, sizes: Sizes, levers: Levers) -> None:
        self.vae = ours.build(AutoencoderKL, sizes.vae, levers.kind)
        texts = ((CLIPTextModel, sizes.text), (CLIPTextModelWithProjection, sizes.text_2))
        self.texts = [ours.build(make, {"config": CLIPTextConfig(**config)}, levers.kind) for make, config in texts]
        self.vision = ours.build(
            CLIPVisionModelWithProjection, {"config": CLIPVisionConfig(**sizes.vision)}, levers.kind
        )
        self.kind, self.side = levers.kind, sizes.side

    @torch.no_grad()
    def prompt(self, count: int) -> Prompt:
        """Embed `count` prompts."""
        ids = torch.randint(1, 49000, (count, 77), device=device())
        outputs = [text(ids, output_hidden_states=True) for text in self.texts]
        tokens = torch.cat([output.hidden_states[-2] for output in outputs], 2)
        return Prompt(tokens.float(), outputs[1].text_embeds.float())

    @torch.no_grad()
    def encode(self, batch: Batch) -> Batch:
        """The batch with everything encoded from pictures and prompts."""
        count = len(batch.latents)

        def picture(side: int) -> Tensor:
            return torch.rand(count, 3, side, side, device=device(), dtype=self.kind) * 2 - 1

        latents = [encode_latents(self.vae, picture(self.side)).float() for _ in range(2)]
        image = self.vision(picture(224), output_hidden_states=True).hidden_states[-2].float()
        return replace(
            batch,
            latents=latents[0],
            condition=Condition(self.prompt(count), image),
            reference=Reference(latents[1], self.prompt(count)),
        )


class Official:
    """Four U-Nets: the denoiser, its frozen twin, the twin's copy with the LoRA fused, and the KV-encoder."""

    def __init__(self, sizes: Sizes, batch: int, levers: Levers) -> None:
        self.encoders, self.features = Encoders(sizes, levers), ours.new_batch(sizes, batch)
        self.detector = Detector().to(device()).eval()
        kv = new_kv_encoder(ours.new_unet(sizes, levers), ours.RANK, ours.RANK, seed=0)
        unet = ours.new_unet(sizes, levers)
        ours.attach_adapter(unet, sizes)
        bank = extend_self_attention(unet)
        self.adapter = list(train_adapter_only(unet).values())
        for one in (unet, kv.unet):
            if levers.checkpointing:
                one.enable_gradient_checkpointing()
        self.networks: Networks = ours.networks_of(sizes, levers, unet, kv, bank)
        self.twin = self._copy(unet)
        self._temporary = tempfile.TemporaryDirectory()  # goes with this object
        self.folder = Path(self._temporary.name)
        self._write_child(sizes)
        self.child: UNet2DConditionModel | None = None
        groups = [list(kv.parameters().values()), self.adapter]
        trained = [p for group in groups for p in group]
        # `foreach` is what torch chooses on a GPU; named, so that a projection on a CPU holds as much for it
        self.optimisers = [torch.optim.AdamW(trained, lr=1e-6, foreach=True) for _ in range(2)]

    def _copy(self, unet: UNet2DConditionModel) -> UNet2DConditionModel:
        """A full copy, but for the adapter's weights and the bank, which all share."""
        return copy.deepcopy(unet, {id(p): p for p in self.adapter} | {id(self.networks.bank): self.networks.bank})

    def _write_child(self, sizes: Sizes) -> None:
        carrier = self._copy(self.twin)
        carrier.add_adapter(ours.child_config(sizes), FAST_CHILD)
        tensors = get_peft_model_state_dict(carrier, adapter_name=FAST_CHILD)
        self.save(tensors)

    def save(self, tensors: dict[str, Tensor]) -> None:
        """Write the LoRA to the disk."""
        StableDiffusionXLPipeline.save_lora_weights(self.folder, unet_lora_layers=tensors)

    def load(self) -> dict[str, Tensor]:
        """Read it."""
        return load_file(self.folder / "pytorch_lora_weights.safetensors")

    def reload(self) -> None:
        """A new alpha_LoRA: copy the U-Net, read the LoRA from the disk, fuse it."""
        self.child = None
        self.child = self._copy(self.twin)
        self.child.load_lora_adapter(self.load(), prefix="unet", adapter_name=FAST_CHILD)
        self.child.fuse_lora(lora_scale=ours.ALPHA, adapter_names=[FAST_CHILD])
        self.child.unload_lora()
        trained = {id(p) for p in self.adapter}
        for parameter in self.child.parameters():
            parameter.requires_grad_(id(parameter) in trained)

    def step(self, number: int) -> None:
        """Encode, then each loss with a pass of the KV-encoder and an optimiser step of its own."""
        if number % RELOAD == 0:
            self.reload()
        batch, generator = self.encoders.encode(self.features), generator_for("benchmark", 0, number)
        for loss, optimiser in zip((self._noise, self._lookahead), self.optimisers, strict=True):
            loss(batch, generator)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def _noise(self, batch: Batch, generator: torch.Generator) -> None:
        draw = ours.new_draw(batch)
        keys_values = encode_reference(self.networks, batch, draw)
        with appended(self.networks.bank, drop_tokens(keys_values, ours.TOKEN_DROP, generator)):
            noise_losses(self.networks, batch, draw, batch.condition).mean().backward()

    def _lookahead(self, batch: Batch, generator: torch.Generator) -> None:
        draw, networks = ours.new_draw(batch), replace(self.networks, unet=self.child)
        keys_values = encode_reference(networks, batch, draw)
        with appended(networks.bank, drop_tokens(keys_values, ours.TOKEN_DROP, generator)):
            pixels = preview_pixels(networks, batch, draw, ours.PREVIEW, generator)
            self.detector(pixels.detach())
            distance, _ = preview_distances(networks, batch, pixels, "identity")
            (distance.mean() * ours.ALPHA * ours.WEIGHT).backward()
