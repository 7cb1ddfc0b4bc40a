"""The losses of training and their gradients against the official code's, through all networks (docs/parity.md)."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from benchmarks.sdxl import iresnet
from lookahead.config import Preview, read_params
from lookahead.method.attention import appended
from lookahead.method.diffusion import NoiseSchedule, noise_loss
from lookahead.method.lookahead import lookahead_loss
from lookahead.models import recogniser
from lookahead.models.adapter import adapter_parameters
from lookahead.models.fast_child import child_at
from lookahead.models.recogniser import TEMPLATE, Recogniser
from lookahead.training.losses import preview_distances, preview_pixels
from lookahead.world import FAST_CHILD
from tests.modules import ROOT
from tests.official.checkpoint import FIRST, GOLDEN, MIDDLE, Ours, close, drawn, given

OFFICIAL_TEMPLATE = (TEMPLATE[0], (72.5318, 51.5014), *TEMPLATE[2:])
ALPHA, T = 0.6, 401
IR = {"widths": (16, 16, 32, 32), "blocks": (1, 1, 1, 1)}  # a narrow recogniser, the same on both sides


@pytest.fixture
def trained(ours: Ours) -> Iterator[dict[str, Tensor]]:
    """Trained weights by their official names, without gradients before and after."""
    adapter, loras = adapter_parameters(ours.pipe.unet), ours.kv.parameters()
    middle, first = MIDDLE.replace(".", "/"), FIRST.replace(".", "/")
    lora = "unet.{}.lora_{}.kv_encoder.weight"
    for parameter in (*adapter.values(), *loras.values()):
        parameter.requires_grad_(True)
    yield {
        f"encoder_unet.{MIDDLE}.attn1.to_q.lora_layer.down.weight": loras[lora.format(f"{MIDDLE}.attn1.to_q", "A")],
        f"encoder_unet.{FIRST}.attn2.to_out.0.lora_layer.up.weight": loras[lora.format(f"{FIRST}.attn2.to_out.0", "B")],
        f"encoder_unet.{MIDDLE}.extract_kv1.to_k.lora_layer.up.weight": loras[f"shared.{middle}/attn1.0.up.weight"],
        f"encoder_unet.{FIRST}.extract_kv1.to_v.lora_layer.down.weight": loras[f"shared.{first}/attn1.1.down.weight"],
        "image_proj_model.proj_out.bias": adapter["image_projection.proj_out.bias"],
        "image_proj_model.layers.2.0.norm1.weight": adapter["image_projection.layers.2.ln0.weight"],
        f"encoder_unet.{MIDDLE}.extract_kv2.to_k.weight": adapter[f"{MIDDLE}.attn2.processor.to_k_ip.0.weight"],
    }
    for parameter in (*adapter.values(), *loras.values()):
        parameter.requires_grad_(False)
        parameter.grad = None


def close_gradients(trained: dict[str, Tensor], kind: str) -> None:
    for name, parameter in trained.items():
        assert parameter.grad is not None
        golden = GOLDEN[f"{kind}.{name}"]
        close(parameter.grad[..., :: parameter.shape[-1] // golden.shape[-1]], f"{kind}.{name}")


def test_the_noise_loss(ours, trained):
    with appended(ours.bank, ours.encoded(T)):
        loss = noise_loss(ours.predictions(T, rows=(1,)), given("target", 1, 4, 16, 16)).mean()
        loss.backward()
    close(loss.detach()[None], "noise_loss")
    close_gradients(trained, "gradient")


def smooth(network: Any) -> Any:
    """SiLU for ReLU, at whose kinks a difference of 1e-6 becomes one of 5e-3 in the gradients."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.PReLU | nn.ReLU):
                setattr(module, name, nn.SiLU())
    return network


def networks(ours: Ours) -> SimpleNamespace:
    """What the identity loss passes through: the fast child, its noise schedule, TAESD and a recogniser."""
    vae = AutoencoderTiny()
    vae.load_state_dict({n: drawn(f"preview_vae.{n}", tuple(t.shape)) for n, t in vae.state_dict().items()})
    network = smooth(iresnet(**IR))
    weights = {n: drawn(f"recogniser.{n}", tuple(t.shape)) for n, t in network.state_dict().items() if t.ndim}
    weights |= {n: t.abs() + 0.5 for n, t in weights.items() if n.endswith("running_var")}
    network.load_state_dict(weights, strict=False)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return SimpleNamespace(
        unet=ours.pipe.unet,
        schedule=NoiseSchedule((1 - betas).cumprod(0), "epsilon"),
        preview_vae=smooth(vae).eval().requires_grad_(False),
        recogniser=Recogniser(network, 127.5, 127.5),
        detector=None,
        time_ids=torch.tensor([[128.0, 128, 0, 0, 128, 128]]),
        precision=torch.float32,
    )


def portrait(net: SimpleNamespace, landmarks: Tensor) -> Tensor:
    """The embedding of the reference."""
    pixels = nn.functional.interpolate(given("portrait", 1, 3, 128, 128)[..., :16, :16], size=128, mode="bicubic")
    return net.recogniser(recogniser.align(pixels.clamp(-1, 1), landmarks))


def test_the_identity_loss_on_the_preview(ours, trained, monkeypatch):
    """Keys and values, fast child, one LCM step, preview decoder, crop and recogniser, as one training step has them.

    Both codes have the same landmarks, the official template turned and scaled: there the two fits agree.
    """
    monkeypatch.setattr(recogniser, "TEMPLATE", OFFICIAL_TEMPLATE)
    turned = torch.view_as_complex(torch.tensor(OFFICIAL_TEMPLATE)) * (0.95 + 0.1j) + (18 + 2j)
    landmarks, net = torch.view_as_real(turned)[None], networks(ours)
    settings = read_params(ROOT / "params.yaml").worlds["sdxl"].train.lookahead.preview
    batch = SimpleNamespace(condition=ours.condition(1), landmarks=landmarks, embeddings=portrait(net, landmarks))
    draw = SimpleNamespace(t=torch.tensor([T]), noise=given("noisy", 1, 4, 16, 16))
    preview = Preview.model_validate(settings.model_dump() | {"start": "noise"})  # the golden noisy latents, as given
    with child_at(ours.child, FAST_CHILD, ALPHA), appended(ours.bank, ours.encoded(T)):
        pixels = preview_pixels(net, batch, draw, preview, torch.Generator())
        distance, _ = preview_distances(net, batch, pixels, "identity")
        loss = lookahead_loss(distance, ALPHA, weight_by_scale=False)
        loss.backward()
    close(pixels.detach()[:, :, ::2, ::2], "preview")
    close(loss.detach()[None], "identity_loss")
    close_gradients(trained, "identity_gradient")
