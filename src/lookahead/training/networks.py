"""What a training consists of: its networks, of which only the image adapter and the KV-encoder's LoRAs are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._dynamo.config
import torch._functorch.config
from diffusers import AutoencoderTiny, UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from lookahead import world
from lookahead.config import Checkpoints, Train
from lookahead.errors import InputError
from lookahead.features.store import FeatureStore, open_features
from lookahead.method.attention import KeysValues
from lookahead.method.diffusion import NoiseSchedule
from lookahead.models.adapter import adapter_parameters
from lookahead.models.fast_child import hold_scale_as_tensor, lora_layers, switch_off
from lookahead.models.kv_encoder import KVEncoder, extend_self_attention, new_kv_encoder
from lookahead.models.recogniser import Recogniser, open_recogniser
from lookahead.sampling.loop import noise_schedule
from lookahead.training.data import Pairs
from lookahead.world import FAST_CHILD, LandmarkDetector, Pipeline, device

Backend = str | Callable[..., Any]  # of torch.compile: a name that torch knows, or a function


@dataclass(frozen=True)
class Networks:
    """The networks of one training, opened once."""

    unet: UNet2DConditionModel
    child: list[LoraLayer]  # the U-Net's layers with the LCM-LoRA
    kv: KVEncoder | None
    bank: KeysValues  # what the denoiser's self-attention appends
    schedule: NoiseSchedule
    preview_vae: AutoencoderTiny
    recogniser: Recogniser
    detector: LandmarkDetector | None
    time_ids: Tensor  # (1, 6): SDXL's original size, crop and target size; other bases ignore it
    precision: torch.dtype
    previewed: list[int] | None  # the timesteps that the fast child was distilled for; None: all


@dataclass(frozen=True)
class Training:
    """One training: data, networks and settings, and what a step updates: weights, optimizer, EMA (empty without)."""

    pipe: Pipeline
    networks: Networks
    store: FeatureStore
    pairs: Pairs
    settings: Train
    weights: dict[str, nn.Parameter]
    optimizer: torch.optim.AdamW
    ema: dict[str, Tensor] = field(default_factory=dict)

    @property
    def timesteps(self) -> int:
        """The noise schedule's number of timesteps."""
        return len(self.networks.schedule.alphas_cumprod)


def train_adapter_only(unet: UNet2DConditionModel) -> dict[str, nn.Parameter]:
    """Freeze all but the image adapter, which becomes float32: in half precision its updates would vanish."""
    unet.requires_grad_(False)
    trained = adapter_parameters(unet)
    for parameter in trained.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return trained


def enable_checkpointing(unets: Sequence[UNet2DConditionModel], preview_vae: AutoencoderTiny) -> None:
    """Let `backward()` compute every U-Net block a second time, and the preview decoder picture by picture."""
    for unet in unets:
        unet.enable_gradient_checkpointing()
    preview_vae.enable_gradient_checkpointing()
    preview_vae.enable_slicing()  # its layers are one checkpoint: of one picture, not of all


def compile_unets(
    unets: Sequence[UNet2DConditionModel], child: Sequence[LoraLayer], memory_budget: float, backend: Backend
) -> None:
    """Compile U-Nets, adapters and attention processors in place, at their first call; parameters keep their names.

    Each graph is whole, or torch raises: a break in every attention layer would cost more than compiling gains. There
    is one for each of: the child on or off, with or without keys and values, with or without gradients. The child's
    strength becomes an input. `memory_budget` is the share of activations that is kept, in this whole process.
    """
    hold_scale_as_tensor(child, FAST_CHILD)
    # Checkpointed layers of the KV-encoder put keys and values into a dict, which `backward()` need not repeat.
    torch._dynamo.config.skip_fwd_side_effects_in_bwd_under_checkpoint = True
    torch._functorch.config.activation_memory_budget = memory_budget
    for unet in unets:  # isolated: both, and those of earlier trainings, would share torch's limit of graphs
        unet.compile(dynamic=False, fullgraph=True, backend=backend, isolate_recompiles=True)


def open_networks(
    checkpoints: Checkpoints, settings: Train, backend: Backend = "inductor"
) -> tuple[Pipeline, Networks]:
    """Open the base with the fast child (off) and the untuned adapter (trainable), preview decoder and recogniser.

    With `kv.enabled` the KV-encoder too, over the same frozen weights. With `compile` both U-Nets are compiled by that
    backend of torch.compile.
    """
    if world.dtype(checkpoints) == torch.float16:
        raise InputError(
            f"precision is {checkpoints.precision}, here float16, which cannot train without loss scaling: choose "
            "float32, or bfloat16 on a GPU that has it"
        )
    pipe = world.open_denoiser(checkpoints)
    if settings.channels_last:
        pipe.unet.to(memory_format=torch.channels_last)
    kv = settings.kv
    # Before the fast child and the adapter are attached: it copies the plain U-Net.
    encoder = new_kv_encoder(pipe.unet, kv.rank, kv.shared_rank, settings.seed) if kv.enabled else None
    world.attach_fast_child(pipe, checkpoints)
    world.attach_adapter(pipe, checkpoints)
    child = lora_layers(pipe.unet, FAST_CHILD)
    switch_off(child)
    train_adapter_only(pipe.unet)
    bank = extend_self_attention(pipe.unet) if encoder is not None else {}
    unets = [pipe.unet] if encoder is None else [pipe.unet, encoder.unet]
    preview_vae = world.open_preview_vae(checkpoints)
    if settings.gradient_checkpointing:
        enable_checkpointing(unets, preview_vae)
    if settings.compile:
        compile_unets(unets, child, settings.activation_memory_budget, backend)
    faces, side = checkpoints.faces, checkpoints.resolution
    detects = settings.lookahead.weight > 0 and settings.lookahead.landmarks != "target"
    return pipe, Networks(
        unet=pipe.unet,
        child=child,
        kv=encoder,
        bank=bank,
        schedule=noise_schedule(pipe.scheduler),
        preview_vae=preview_vae,
        recogniser=open_recogniser(world.recogniser_onnx(faces.loss)).to(device()),
        detector=LandmarkDetector(faces.loss, faces.detection_size) if detects else None,
        time_ids=torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32, device=device()),
        precision=world.dtype(checkpoints),
        previewed=checkpoints.fast_child.timesteps,
    )


def open_training(checkpoints: Checkpoints, settings: Train, features: Path, backend: Backend = "inductor") -> Training:
    """Open the features and the networks, and make the optimizer."""
    store = open_features(features)
    pairs = Pairs(store.table, settings.own_photos, settings.photos_only)
    pipe, networks = open_networks(checkpoints, settings, backend)
    kv = {} if networks.kv is None else networks.kv.parameters()
    adapter = adapter_parameters(networks.unet)
    weights = adapter | {f"kv.{name}": weight for name, weight in kv.items()}  # all that is trained (§4.1)
    ema = {name: weight.detach().clone() for name, weight in weights.items()} if settings.ema_decay else {}
    groups = [  # with learning rates of their own (official recipe)
        {"params": list(own.values()), "lr": rate, "initial_lr": rate}
        for own, rate in ((adapter, settings.learning_rate), (kv, settings.kv.learning_rate))
        if own
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)
    return Training(pipe, networks, store, pairs, settings, weights, optimizer, ema)
