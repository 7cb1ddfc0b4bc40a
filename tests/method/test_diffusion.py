"""Algebra of the diffusion process, in float64."""

import pytest
import torch
from diffusers import DDPMScheduler

from lookahead.method.diffusion import NoiseSchedule, add_noise, clean_latents, noise_loss, noise_target
from lookahead.method.guidance import guided
from lookahead.method.preview import lcm_preview

TYPES = ("epsilon", "v_prediction")


def sdxl_schedule(prediction_type: str, dtype: torch.dtype = torch.float64) -> NoiseSchedule:
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return NoiseSchedule((1 - betas).cumprod(0).to(dtype), prediction_type)


@pytest.fixture
def draw() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, 6, 4, 8, 8, generator=generator, dtype=torch.float64)
    return latents, noise, torch.tensor([0, 1, 250, 500, 900, 999])


@pytest.mark.parametrize("prediction_type", TYPES)
def test_the_true_prediction_gives_the_latents_back(prediction_type, draw):
    schedule, (latents, noise, t) = sdxl_schedule(prediction_type), draw
    noisy = add_noise(schedule, latents, noise, t)
    target = noise_target(schedule, latents, noise, t)
    torch.testing.assert_close(clean_latents(schedule, noisy, target, t), latents, rtol=1e-11, atol=1e-11)


def test_preview_is_equation_3_by_hand(draw):
    schedule, (noisy, eps, t) = sdxl_schedule("epsilon"), draw
    preview = lcm_preview(schedule, noisy, eps, t)
    for i, step in enumerate(t.tolist()):
        a = schedule.alphas_cumprod[step]
        torch.testing.assert_close(preview[i], (noisy[i] - (1 - a).sqrt() * eps[i]) / a.sqrt())


def test_half_precision_is_computed_in_float32(draw):
    schedule = sdxl_schedule("epsilon", torch.float32)
    latents, noise, t = draw
    noisy = add_noise(schedule, latents.bfloat16(), noise.bfloat16(), t)
    assert noisy.dtype == torch.float32
    assert clean_latents(schedule, noisy, noise.bfloat16(), t).dtype == torch.float32


def test_noise_loss_is_the_mean_of_each_sample(draw):
    prediction, target, _ = draw
    by_hand = torch.stack([torch.nn.functional.mse_loss(p, q) for p, q in zip(prediction, target, strict=True)])
    torch.testing.assert_close(noise_loss(prediction, target), by_hand)


def test_guidance_of_one_is_the_conditional_prediction(draw):
    unconditional, conditional, _ = draw
    torch.testing.assert_close(guided(unconditional, [conditional], [1.0]), conditional)
    torch.testing.assert_close(guided(unconditional, [], []), unconditional)
    official = guided(unconditional, [conditional, 2 * conditional, -conditional], [3.0, 2.0, 2.0])
    torch.testing.assert_close(official, (3 + 4 - 2) * conditional + (1 - 7) * unconditional)


@pytest.mark.parametrize("prediction_type", TYPES)
def test_schedule_and_formulas_agree_with_diffusers(prediction_type, draw):
    latents, noise, t = (x.float() if x.is_floating_point() else x for x in draw)
    theirs = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    ours = NoiseSchedule(theirs.alphas_cumprod, prediction_type)
    torch.testing.assert_close(add_noise(ours, latents, noise, t), theirs.add_noise(latents, noise, t))
    velocity = theirs.get_velocity(latents, noise, t) if prediction_type == "v_prediction" else noise
    torch.testing.assert_close(noise_target(ours, latents, noise, t), velocity)
