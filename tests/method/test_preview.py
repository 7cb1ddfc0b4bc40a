"""Eq. 3 against diffusers' LCM scheduler, and the previews of several steps."""

import pytest
import torch
from diffusers import LCMScheduler

from lookahead.method.diffusion import NoiseSchedule, add_noise, clean_latents
from lookahead.method.preview import consistency_scalings, consistency_stepping, lcm_preview, with_boundary


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
@pytest.mark.parametrize("t", [0, 1, 19, 499, 999])
def test_with_the_boundary_it_is_what_the_lcm_scheduler_calls_denoised(prediction_type, t):
    lcm = scheduler(prediction_type)
    lcm.set_timesteps(1000, original_inference_steps=1000)
    noisy, prediction = tensors(2)
    expected = lcm.step(prediction, t, noisy, generator=torch.Generator().manual_seed(0)).denoised
    times = torch.full((2,), t)
    ours = with_boundary(noisy, lcm_preview(schedule(prediction_type), noisy, prediction, times), times)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_equals_its_samples_one_by_one():
    noisy, prediction = tensors(4)
    t = torch.tensor([0, 3, 500, 999])
    s = schedule("v_prediction")
    together = with_boundary(noisy, lcm_preview(s, noisy, prediction, t), t)
    for i in range(4):
        row = slice(i, i + 1)
        alone = with_boundary(noisy[row], lcm_preview(s, noisy[row], prediction[row], t[row]), t[row])
        torch.testing.assert_close(together[row], alone)


def test_scalings_are_the_identity_at_0_and_nearly_the_preview_from_1_on():
    """Golden at t = 1, s = .5, scaling 10: c_skip = .25 / 100.25, c_out = 10 / sqrt(100.25)."""
    c_skip, c_out = consistency_scalings(torch.tensor([0, 1]))
    assert c_skip[0] == 1 and c_out[0] == 0
    assert c_skip[1].item() == pytest.approx(0.25 / 100.25) and c_out[1].item() == pytest.approx(10 / 100.25**0.5)


def test_several_steps_are_those_of_the_lcm_sampler():
    """Each next step starts where the last one's end is noised again, at t (1 - i / k)."""
    s, (start, extra) = schedule("epsilon"), tensors(2)
    seen = []

    def predict(noisy, t):
        seen.append((noisy, t))
        return 0.1 * noisy

    t = torch.tensor([900, 300])
    made = consistency_stepping(s, predict, start, t, [extra, 2 * extra])
    assert [now.tolist() for _, now in seen] == [[900, 300], [600, 200], [300, 100]]
    clean, noisy = start, start
    for now, noise in (((900, 300), None), ((600, 200), extra), ((300, 100), 2 * extra)):
        times = torch.tensor(now)
        noisy = start if noise is None else add_noise(s, clean, noise, times)
        clean = clean_latents(s, noisy, 0.1 * noisy, times)
    torch.testing.assert_close(made, clean)


@pytest.mark.parametrize("gradient_steps", [1, 2, 3])
def test_the_gradient_goes_through_the_last_steps_alone(gradient_steps):
    s, (start, extra) = schedule("v_prediction"), tensors(2)
    weights = [torch.tensor(0.1, requires_grad=True) for _ in range(3)]
    used = iter(weights)
    made = consistency_stepping(
        s, lambda noisy, t: next(used) * noisy, start, torch.tensor([900, 300]), [extra, extra], gradient_steps
    )
    made.sum().backward()
    assert [w.grad is not None for w in weights] == [i >= 3 - gradient_steps for i in range(3)]


def test_without_gradients_none_are_switched_on():
    s, (start, _) = schedule("v_prediction"), tensors(2)
    weight = torch.tensor(0.1, requires_grad=True)
    with torch.no_grad():
        made = consistency_stepping(s, lambda noisy, t: weight * noisy, start, torch.tensor([900, 300]))
    assert not made.requires_grad
