"""Eq. 3 against diffusers' LCM scheduler, and the previews of several steps."""

import pytest
import torch
from diffusers import LCMScheduler

from lookahead.method.diffusion import NoiseSchedule, add_noise, clean_latents
from lookahead.method.preview import consistency_stepping, lcm_preview, with_boundary


def scheduler(prediction_type: str) -> LCMScheduler:
    return LCMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type
    )


def schedule(prediction_type: str) -> NoiseSchedule:
    return NoiseSchedule(scheduler(prediction_type).alphas_cumprod, prediction_type)


def tensors(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(count, 4, 8, 8, generator=generator) for _ in range(2))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_with_the_boundary_it_is_what_the_lcm_scheduler_calls_denoised(prediction_type):
    """Each sample at its own timestep; at t = 0 it is the identity."""
    (noisy, prediction), t = tensors(5), torch.tensor([0, 1, 19, 499, 999])
    ours = with_boundary(noisy, lcm_preview(schedule(prediction_type), noisy, prediction, t), t)
    for row, step in enumerate(t):
        lcm = scheduler(prediction_type)
        lcm.set_timesteps(1000, original_inference_steps=1000)
        theirs = lcm.step(prediction[row], step, noisy[row], generator=torch.Generator().manual_seed(0)).denoised
        torch.testing.assert_close(ours[row], theirs, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours[0], noisy[0])


def test_several_steps_are_those_of_the_lcm_sampler():
    """Each next step starts where the last one's end is noised again, at t (1 - i / k)."""
    s, (start, extra) = schedule("epsilon"), tensors(2)
    seen = []

    def predict(noisy, t):
        seen.append((noisy, t))
        return 0.1 * noisy

    t = torch.tensor([900, 300])
    preview = consistency_stepping(s, predict, start, t, [extra, 2 * extra])
    assert [now.tolist() for _, now in seen] == [[900, 300], [600, 200], [300, 100]]
    clean, noisy = start, start
    for now, noise in (((900, 300), None), ((600, 200), extra), ((300, 100), 2 * extra)):
        times = torch.tensor(now)
        noisy = start if noise is None else add_noise(s, clean, noise, times)
        clean = clean_latents(s, noisy, 0.1 * noisy, times)
    torch.testing.assert_close(preview, clean)


@pytest.mark.parametrize("gradient_steps", [1, 2, 3])
def test_the_gradient_goes_through_the_last_steps_alone(gradient_steps):
    s, (start, extra) = schedule("v_prediction"), tensors(2)
    weights = [torch.tensor(0.1, requires_grad=True) for _ in range(3)]
    used = iter(weights)
    preview = consistency_stepping(
        s, lambda noisy, t: next(used) * noisy, start, torch.tensor([900, 300]), [extra, extra], gradient_steps
    )
    preview.sum().backward()
    assert [w.grad is not None for w in weights] == [i >= 3 - gradient_steps for i in range(3)]


def test_without_gradients_none_are_switched_on():
    s, (start, _) = schedule("v_prediction"), tensors(2)
    weight = torch.tensor(0.1, requires_grad=True)
    with torch.no_grad():
        preview = consistency_stepping(s, lambda noisy, t: weight * noisy, start, torch.tensor([900, 300]))
    assert not preview.requires_grad
