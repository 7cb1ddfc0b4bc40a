"""A checkpoint in the authors' layout is converted, and gives their numbers: see `tests/official/__init__.py`."""

import hashlib
import json
from types import SimpleNamespace

import pytest
import skimage.data
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessor

from lookahead.config import read_params
from lookahead.method.annealing import cosine_density
from lookahead.method.diffusion import NoiseSchedule
from lookahead.method.preview import lcm_preview, with_boundary
from lookahead.models.recogniser import TEMPLATE, similarity
from lookahead.sampling.conditions import Prompt, Reference, reference_pixels
from lookahead.sampling.loop import Sampler, predict_guided
from tests.modules import ROOT
from tests.official.checkpoint import FIRST, GOLDEN, LAST, MIDDLE, TOLERANCE, close, given

NAMES = "7fd5e3e6f37da049fb25f9154a504ee47e733f8536a99b7dac0c645557a17a83"  # SHA-256 of all names and shapes
TIMESTEPS = (981, 401, 21)


def test_the_checkpoint_has_the_official_names_and_shapes(ours):
    names = sorted((name, list(tensor.shape)) for name, tensor in ours.checkpoint.items())
    assert hashlib.sha256(json.dumps(names, separators=(",", ":")).encode()).hexdigest() == NAMES


@torch.no_grad()
def test_image_tokens(ours):
    tokens = ours.pipe.unet.encoder_hid_proj([given("features", 2, 17, 128).unsqueeze(1)])[0]
    close(tokens.squeeze(1)[:, :, ::32], "image_tokens")


@torch.no_grad()
def test_keys_and_values_of_the_first_a_middle_and_the_last_layer(ours):
    encoded = ours.encoded(401)
    for layer in (FIRST, MIDDLE, LAST):
        keys, values = encoded[f"{layer}.attn1"]
        close(keys[:, ::2], f"{layer}.keys")
        close(values[:, ::2], f"{layer}.values")


@torch.no_grad()
@pytest.mark.parametrize("t", TIMESTEPS)
def test_predictions_and_the_guided_one(ours, t):
    close(ours.predictions(t), f"alone.{t}")
    close(ours.shared(t), f"shared.{t}")
    scales = read_params(ROOT / "params.yaml").worlds["sdxl"].personalize.kv_guidance
    sampler = Sampler(ours.pipe, 1, scales, ours.kv, ours.bank)
    portrait = Prompt(given("portrait_text", 1, 77, 2048), given("portrait_pooled", 1, 1280))
    reference, start = Reference(given("reference", 1, 4, 16, 16), portrait), given("start", 1, 4, 16, 16)
    conditional, free, noisy = ours.condition(1), ours.condition(0), given("noisy", 1, 4, 16, 16)
    close(predict_guided(sampler, noisy, torch.tensor(t), conditional, free, start, reference), f"guided.{t}")


@torch.no_grad()
def test_freeu(ours):
    """The official guard leaves the first block as it is, which 1 does in diffusers'."""
    ours.pipe.unet.enable_freeu(s1=1.0, s2=0.2, b1=1.0, b2=1.1)
    try:
        close(ours.shared(401), "freeu.401")
    finally:
        ours.pipe.unet.disable_freeu()


def test_the_step_of_the_fast_child_with_its_boundary():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    schedule = NoiseSchedule((1 - betas).cumprod(0), "epsilon")
    t = torch.tensor([0, 1, 7, 49, 199, 499, 801, 999])
    noisy, prediction = (given(name, 1, 4, 16, 16).expand(len(t), -1, -1, -1) for name in ("noisy", "target"))
    found = with_boundary(noisy, lcm_preview(schedule, noisy, prediction, t), t)
    close(found, "lcm_step")
    rows = (found - GOLDEN["lcm_step"]).flatten(1).norm(dim=1) / GOLDEN["lcm_step"].flatten(1).norm(dim=1)
    assert rows.max() < TOLERANCE  # the boundary changes small t alone


@pytest.mark.parametrize(("name", "strength"), [("density_noise", 0.5), ("density_lookahead", 0.2)])
def test_densities_of_timesteps(name, strength):
    settings = read_params(ROOT / "params.yaml").worlds["sdxl"].train
    density = settings.noise_density if name == "density_noise" else settings.lookahead.density
    assert (density.kind, density.strength) == ("cosine", strength)
    close(cosine_density(strength, 1000)[::10], name)


def test_the_alignment_differs_by_its_template():
    """Theirs has the second eye a pixel further left, and fits from the template to the picture."""
    landmarks = 3 * (torch.tensor(TEMPLATE) + 0.5 * given("landmarks", 20, 5, 2)).double() + 40
    ones = torch.ones(4, 1, dtype=torch.float64)
    corners = torch.tensor([[0, 0], [111, 0], [0, 111], [111, 111]], dtype=torch.float64)

    def apart(template: tuple[tuple[float, float], ...]) -> float:
        a, b = similarity(landmarks, torch.tensor(template, dtype=torch.float64)[None])
        turn = torch.stack([torch.cat([a.real, -a.imag, b.real], 1), torch.cat([a.imag, a.real, b.imag], 1)], 1)
        last = torch.tensor([[[0.0, 0.0, 1.0]]], dtype=torch.float64).expand(len(turn), -1, -1)
        picture = torch.cat([corners, ones], 1) @ torch.cat([GOLDEN["alignment"], last], 1).inverse().mT
        return float((picture @ turn.mT - corners).norm(dim=2).mean())

    arcface, theirs = apart(TEMPLATE), apart((TEMPLATE[0], (72.5318, 51.5014), *TEMPLATE[2:]))
    print(f"| crops apart, in pixels; with the official template | {arcface:.2f} | {theirs:.2f} |")  # noqa: T201
    assert theirs < 0.1 < 0.5 < arcface < 1.0  # pixels of 112


@pytest.mark.parametrize("name", ["square", "wide"])
def test_preprocessing_of_a_portrait(name):
    """Theirs first stretches a photo to 1024 x 1024 pixels: so stretched, it gives the same inputs of both encoders."""
    photo = Image.fromarray(skimage.data.astronaut())
    photo = photo if name == "square" else photo.crop((0, 0, 512, 384))
    stretched = photo.resize((1024, 1024), Image.Resampling.BICUBIC)
    pipe = SimpleNamespace(
        unet=SimpleNamespace(config=SimpleNamespace(sample_size=128)),
        vae_scale_factor=8,
        image_processor=VaeImageProcessor(),
    )

    def clip_pixels(photo: Image.Image) -> Tensor:
        return CLIPImageProcessor()(images=[photo], return_tensors="pt").pixel_values[:, :, ::8, ::8]

    close(clip_pixels(stretched), f"clip_pixels.{name}")
    close(reference_pixels(pipe, [stretched])[:, :, ::32, ::32], f"vae_pixels.{name}")
    wanted = GOLDEN[f"clip_pixels.{name}"]
    apart = float((clip_pixels(photo) - wanted).norm() / wanted.norm())
    print(f"| as it is, {name} | {apart:.1e} |")  # noqa: T201
    assert (apart < 0.03) is (name == "square")  # one resampling instead of two, and a crop instead of stretching
