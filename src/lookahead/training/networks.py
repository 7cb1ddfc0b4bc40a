"""Opens what training needs; afterwards only the image adapter's parameters are trainable."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel
from torch import nn

from lookahead.config import Checkpoints
from lookahead.errors import InputError
from lookahead.method.diffusion import NoiseSchedule
from lookahead.models.adapter import adapter_parameters
from lookahead.models.fast_child import lora_layers, switch_off
from lookahead.models.recogniser import open_recogniser
from lookahead.training.step import Networks
from lookahead.world import (
    FAST_CHILD,
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


def open_networks(checkpoints: Checkpoints, gradient_checkpointing: bool) -> tuple[Pipeline, Networks]:
    """Open the base with the fast child (off) and the untuned adapter (trainable), preview decoder and recogniser.

    Raises:
        InputError: a checkpoint is missing, damaged or does not fit, or the precision is float16.
    """
    if checkpoints.precision == "float16":
        raise InputError("precision is float16, which cannot train without loss scaling: choose bfloat16 or float32")
    pipe = open_pipeline(checkpoints)
    attach_fast_child(pipe, checkpoints)
    attach_adapter(pipe, checkpoints)
    child = lora_layers(pipe.unet, FAST_CHILD)
    switch_off(child)
    if gradient_checkpointing:
        pipe.unet.enable_gradient_checkpointing()
    train_adapter_only(pipe.unet)
    side = checkpoints.resolution
    return pipe, Networks(
        unet=pipe.unet,
        child=child,
        schedule=noise_schedule(pipe),
        preview_vae=open_preview_vae(checkpoints),
        recogniser=open_recogniser(recogniser_onnx(checkpoints.faces.loss)).to(device()),
        time_ids=torch.tensor([[side, side, 0, 0, side, side]], dtype=torch.float32, device=device()),
        precision=dtype(checkpoints),
    )
