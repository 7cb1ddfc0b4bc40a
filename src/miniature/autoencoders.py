"""The two autoencoders: the base model's (AutoencoderKL) and the tiny one that decodes previews."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor
from torch.nn import functional as F

from miniature.data import Pool, to_pixels
from miniature.training import Part, autocast, fit

LATENT_CHANNELS = 8  # four blur the eyes: 24.7 dB after as many steps
KL_WEIGHT = 1e-3
GRADIENT_WEIGHT = 1.0  # keeps eyes and outlines sharp
SCALE_WEIGHT = 0.5  # of decoding halved latents to the halved picture
CROP = 32  # pixels: three steps in four see crops, which cost a quarter; the fourth keeps whole pictures' statistics


def new_vae() -> AutoencoderKL:
    """An untrained AutoencoderKL: 64×64 pixels ↔ 8×16×16 latents."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def new_preview_vae() -> AutoencoderTiny:
    """An untrained AutoencoderTiny over the same latents."""
    return AutoencoderTiny(
        encoder_block_out_channels=(24, 24, 24),
        decoder_block_out_channels=(24, 24, 24),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(2, 2, 1),
        latent_channels=LATENT_CHANNELS,
        upsampling_scaling_factor=2,
        scaling_factor=1.0,
        force_upcast=False,
    )


def reconstruction_loss(decoded: Tensor, pixels: Tensor) -> Tensor:
    """Mean absolute error of pixels and of their differences to the right and downwards."""
    error = decoded - pixels
    return error.abs().mean() + GRADIENT_WEIGHT * (error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean())


def build_vae(pool: Pool, part: Part, out: Path, work: Path) -> None:
    """Train the base model's autoencoder and save it with latents of zero mean and unit variance in every channel.

    Halved latents have to decode to the halved picture, which keeps the latents smooth, and so easy for a small U-Net
    to denoise (scale equivariance, arXiv 2502.14831).
    """
    torch.manual_seed(part.seed)
    vae = new_vae().to(memory_format=torch.channels_last)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        pixels = _pictures_or_crops(pool, part.batch_size, step, generator)
        with autocast():
            posterior = vae.encode(pixels.contiguous(memory_format=torch.channels_last)).latent_dist
            latents = posterior.sample(generator)
            decoded, small = vae.decode(latents).sample, vae.decode(F.avg_pool2d(latents, 2)).sample
        return (
            reconstruction_loss(decoded.float(), pixels)
            + SCALE_WEIGHT * reconstruction_loss(small.float(), F.avg_pool2d(pixels, 2))
            + KL_WEIGHT * posterior.kl().float().mean() / posterior.mean[0].numel()
        )

    fit(vae, loss, part, work)
    standardise(vae, to_pixels(pool.pixels[:2000]))
    vae.eval().half().save_pretrained(out)


def _pictures_or_crops(pool: Pool, count: int, step: int, generator: torch.Generator) -> Tensor:
    whole = step % 4 == 0
    rows = torch.randint(len(pool), (count if whole else 2 * count,), generator=generator)
    if whole:
        return to_pixels(pool.pixels[rows])
    top, left = torch.randint(pool.pixels.shape[-1] - CROP + 1, (2,), generator=generator).tolist()
    return to_pixels(pool.pixels[rows, :, top : top + CROP, left : left + CROP])


@torch.no_grad()
def standardise(vae: AutoencoderKL, pixels: Tensor) -> None:
    """Fold each latent channel's mean and deviation into the 1×1 convolutions around the latents.

    Channels of small variance would drown in the noise-prediction error.
    """
    latents = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in pixels.split(100)])
    mean, deviation = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    into, out_of = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    into.weight[:channels] /= deviation[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) / deviation
    into.bias[channels:] -= 2 * deviation.log()  # the second half is the log-variance
    out_of.bias += (out_of.weight[:, :, 0, 0] * mean).sum(1)
    out_of.weight *= deviation[None, :, None, None]


def build_preview_vae(pool: Pool, vae: AutoencoderKL, part: Part, out: Path, work: Path) -> None:
    """Train the tiny autoencoder: its encoder copies the base's latents, its decoder draws the picture."""
    torch.manual_seed(part.seed)
    tiny = new_preview_vae().to(memory_format=torch.channels_last)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        pixels = to_pixels(pool.pixels[torch.randint(len(pool), (part.batch_size,), generator=generator)])
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.mean
        decoded = tiny.decode(latents.contiguous(memory_format=torch.channels_last)).sample
        return reconstruction_loss(decoded, pixels) + F.l1_loss(tiny.encode(pixels).latents, latents)

    fit(tiny, loss, part, work)
    tiny.eval().half().save_pretrained(out)
