"""Opens what training needs; afterwards only the image adapter and the KV-encoder's LoRAs are trainable."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from lookahead.config import Checkpoints, Train
from lookahead.errors import InputError
from lookahead.method.diffusion import NoiseSchedule
from lookahead.models.adapter import adapter_parameters
from lookahead.models.fast_child import lora_layers, switch_off
from lookahead.models.kv_encoder import extend_self_attention, new_kv_encoder
from lookahead.models.recogniser import open_recogniser
from lookahead.training.step import Networks
from lookahead.world import (
    FAST_CHILD,
    LandmarkDetector,
    Pipeline,
    attach_adapter,
    attach_fast_child,
    device,
    dtype,
    open_pipeline,
    open_preview_vae,
    recogniser_onnx,
)


def noise_schedule(pipe: Pipeline) -> NoiseSchedule:
    """The schedule that the base model was trained with, in float32 on the device.

    Raises:
        InputError: the base predicts neither noise nor velocity.
    """
    prediction_type = pipe.scheduler.config.prediction_type
    if prediction_type not in ("epsilon", "v_prediction"):
        raise InputError(f"the base model predicts {prediction_type!r}; training knows epsilon and v_prediction")
    return NoiseSchedule(pipe.scheduler.alphas_cumprod.to(device(), torch.float32), prediction_type)


def train_adapter_only(unet: UNet2DConditionModel) -> dict[str, nn.Parameter]:
    """Freeze all but the image adapter, which becomes float32 because its updates would vanish in half precision."""
    unet.requires_grad_(False)
    trained = adapter_parameters(unet)
    for parameter in trained.values():
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)
    return trained


def open_networks(checkpoints: Checkpoints, settings: Train) -> tuple[Pipeline, Networks]:
    """Open the base with the fast child (off) and the untuned adapter (trainable), preview decoder and recogniser.

    With `kv.enabled` the KV-encoder too, over the same frozen weights; else nothing of it.

    Raises:
        InputError: a checkpoint is missing, damaged or does not fit, or the precision is float16.
    """
    if checkpoints.precision == "float16":
        raise InputError("precision is float16, which cannot train without loss scaling: choose bfloat16 or float32")
    pipe = open_pipeline(checkpoints)
    kv = settings.kv
    encoder = new_kv_encoder(pipe.unet, kv.rank, kv.shared_rank, settings.seed) if kv.enabled else None
    attach_fast_child(pipe, checkpoints)
    attach_adapter(pipe, checkpoints)
    child = lora_layers(pipe.unet, FAST_CHILD)
    switch_off(child)
    train_adapter_only(pipe.unet)
    if settings.gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
        if encoder is not None:
            encoder.unet.enable_gradient_checkpointing()
    faces, side = checkpoints.faces, checkpoints.resolution
    detects = settings.lookahead.weight > 0 and settings.lookahead.landmarks != "target"
    return pipe, Networks(
        unet=pipe.unet,
        child=child,
        kv=encoder,
        bank=extend_self_attention(pipe.unet) if encoder is not None else {},
        schedule=noise_schedule(pipe),
        preview_vae=open_preview_vae(checkpoints),
        recogniser=open_recogniser(recogniser_onnx(faces.loss)).to(device()),
        detector=LandmarkDetector(faces.loss, faces.detection_size) if detects else None,
        time_ids=torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32, device=device()),
        precision=dtype(checkpoints),
    )
