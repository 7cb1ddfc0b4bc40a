"""Lookahead guidance: at each step the gradient of the fast child's preview's identity distance steers the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from lookahead.config import Checkpoints, Steering
from lookahead.errors import InputError
from lookahead.method.diffusion import NoiseSchedule
from lookahead.method.guidance import steered
from lookahead.method.lookahead import identity_distance
from lookahead.method.preview import consistency_stepping
from lookahead.models.fast_child import child_at
from lookahead.models.recogniser import Recogniser, align, open_recogniser
from lookahead.sampling.conditions import Condition
from lookahead.sampling.loop import noise_schedule, predict
from lookahead.world import (
    FAST_CHILD,
    LandmarkDetector,
    Pipeline,
    decode_latents,
    device,
    open_preview_vae,
    recogniser_onnx,
)


@dataclass(frozen=True)
class Identifier:
    """Embeds the faces of latents: the preview decoder, and detector and recogniser of pack `loss`."""

    preview_vae: Any
    recogniser: Recogniser
    detector: LandmarkDetector

    def embed(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embeddings (F, E) of the faces in pixels (B, 3, H, W), with gradient, and which have one, bool (B,)."""
        landmarks, found = self.detector(pixels.detach())
        found, landmarks = found.to(pixels.device), landmarks.to(pixels.device)
        if not found.any():
            return pixels.new_zeros(0, 1), found
        return self.recogniser(align(pixels[found], landmarks[found])), found

    def face(self, pixels: Tensor) -> Tensor:
        """The mean unit embedding (1, E) of a person's portraits (N, 3, H, W) in [-1, 1]."""
        embeddings, found = self.embed(pixels.to(device()))
        if not found.any():
            raise InputError("no face is found at the size that pictures are drawn in: crop the portrait to the face")
        return torch.nn.functional.normalize(embeddings.mean(0, keepdim=True), dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) of scaled latents (B, C, h, w), by the preview decoder, in float32."""
        return decode_latents(self.preview_vae, latents.float())


def open_identifier(checkpoints: Checkpoints) -> Identifier:
    """Open the preview decoder and the loss's face pack."""
    faces = checkpoints.faces
    recogniser = open_recogniser(recogniser_onnx(faces.loss)).to(device())
    return Identifier(open_preview_vae(checkpoints), recogniser, LandmarkDetector(faces.loss, faces.detection_size))


@dataclass(frozen=True)
class Guide:
    """Steers a sampler: the pipeline, its fast child's layers (none where the U-Net already is the child), settings."""

    pipe: Pipeline
    child: Sequence[LoraLayer]
    identifier: Identifier
    schedule: NoiseSchedule
    settings: Steering

    def steer(self, prediction: Tensor, t: Tensor, noisy: Tensor, given: Condition, aims: Tensor) -> Tensor:
        """The prediction (B, C, h, w) steered to the aims (B, E), for t () inside the range of timesteps.

        It is a sampler's `steer`. The preview is conditioned on prompt and image tokens, not on keys and values.
        """
        if not self.settings.timestep_min <= int(t) <= self.settings.timestep_max:
            return prediction
        times = t.to(noisy.device).long().expand(len(noisy))
        gradient = self.gradient(noisy, times, given, aims)
        return steered(self.schedule, prediction, gradient, times, self.settings.strength)

    def gradient(self, noisy: Tensor, t: Tensor, given: Condition, aims: Tensor) -> Tensor:
        """Of each D(preview, aim) by its noisy latents (B, C, h, w) at t (B,); 0 where the preview shows no face.

        Large pictures, of which a gradient needs gigabytes each, are taken one by one, as the preview decoder does.
        """
        if self.identifier.preview_vae.use_slicing and len(noisy) > 1:
            each = [slice(i, i + 1) for i in range(len(noisy))]
            return torch.cat([self.gradient(noisy[i], t[i], given.map(itemgetter(i)), aims[i]) for i in each])
        with torch.enable_grad(), child_at(self.child, FAST_CHILD, 1.0):
            noisy = noisy.detach().float().requires_grad_()
            noises = self._noises(noisy, t)  # gradient through every step, as only the first one uses `noisy`
            clean = consistency_stepping(
                self.schedule, lambda z, at: self._predict(z, at, given), noisy, t, noises, len(noises) + 1
            )
            embeddings, found = self.identifier.embed(self.identifier.decode(clean))
            if not found.any():
                return torch.zeros_like(noisy)
            distances = identity_distance(embeddings, aims[found])
            (gradient,) = torch.autograd.grad(distances.sum(), noisy)  # a sample's distance depends on its latents only
        return gradient

    def _predict(self, noisy: Tensor, t: Tensor, given: Condition) -> Tensor:
        return predict(self.pipe, noisy.to(self.pipe.unet.dtype), t, [given])[0].float()

    def _noises(self, like: Tensor, t: Tensor) -> list[Tensor]:
        """Noise of the preview's later steps, by the timestep alone, so that a picture does not depend on its batch."""
        generator = torch.Generator().manual_seed(int(t[0]))
        count = self.settings.preview_steps - 1
        return [torch.randn(like[:1].shape, generator=generator).to(like).expand_as(like) for _ in range(count)]


def open_guide(pipe: Pipeline, child: Sequence[LoraLayer], identifier: Identifier, settings: Steering) -> Guide:
    """The guide of a pipeline, by the noise schedule of its scheduler."""
    return Guide(pipe, child, identifier, noise_schedule(pipe.scheduler), settings)
