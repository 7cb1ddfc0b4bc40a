"""The loader: every part opens from folders, frozen, and a bad checkpoint is one error that names it."""

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import LCMScheduler
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lookahead import world
from lookahead.config import Checkpoints, with_overrides
from lookahead.errors import InputError
from lookahead.sampling.loop import time_ids

Open = Callable[[Checkpoints], object]


def _predict(unet: nn.Module, image: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    tokens, pooled = torch.randn(1, 16, 96, generator=generator), torch.randn(1, 64, generator=generator)
    added = {"text_embeds": pooled, "time_ids": torch.tensor([[64.0, 64, 0, 0, 64, 64]])}
    if image:
        added["image_embeds"] = [torch.randn(1, 1, 17, 32, generator=generator)]  # type: ignore[assignment]
    latents = torch.randn(1, 4, 16, 16, generator=generator)
    with torch.no_grad():
        return unet(latents, torch.tensor(500), tokens, added_cond_kwargs=added).sample


def test_the_base_is_frozen_and_in_evaluation_mode(tiny_world: Checkpoints) -> None:
    pipe = world.open_pipeline(tiny_world)
    assert pipe.scheduler.config.prediction_type == "v_prediction"  # the checkpoint's
    for module in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
        assert next(module.parameters()).device.type == world.device().type


def test_the_denoiser_is_the_bases_without_its_encoders(tiny_world: Checkpoints) -> None:
    whole, denoiser = world.open_pipeline(tiny_world), world.open_denoiser(tiny_world)
    world.attach_fast_child(denoiser, tiny_world)
    world.attach_adapter(denoiser, tiny_world)
    world.attach_adapter(whole, tiny_world)
    assert denoiser.vae is None and denoiser.text_encoder is None and denoiser.text_encoder_2 is None
    assert torch.equal(_predict(denoiser.unet, image=True), _predict(whole.unet, image=True))
    assert torch.equal(time_ids(denoiser, 1), time_ids(whole, 1)), "the size in pixels that the U-Net is told"


@pytest.mark.parametrize("opened", [world.open_pipeline, world.open_denoiser, world.open_generator])
def test_the_resolution_decides_the_size_of_all_pictures(
    tiny_world: Checkpoints, opened: Callable[[Checkpoints], world.Pipeline]
) -> None:
    pipe = opened(with_overrides(tiny_world, {"resolution": 32}))
    assert pipe.unet.config.sample_size == 8 and time_ids(pipe, 1).tolist() == [[32, 32, 0, 0, 32, 32]]
    with pytest.raises(InputError, match="resolution is 30: choose a multiple of 4"):
        opened(with_overrides(tiny_world, {"resolution": 30}))


@pytest.mark.parametrize(("side", "batches"), [(256, [1, 1, 1]), (64, [3])])
def test_a_vae_takes_large_pictures_one_by_one(tiny_world: Checkpoints, side: int, batches: list[int]) -> None:
    """In both directions, by whatever is opened, and with the same result."""
    pipe = world.open_pipeline(large := tiny_world.model_copy(update={"resolution": side}))
    noise = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    for vae in (pipe.vae, world.open_preview_vae(large), world.open_generator(large).vae):
        seen: list[int] = []
        for half in (vae.encoder, vae.decoder):
            half.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(len(given[0])))
        with torch.no_grad():
            latents = vae.encode(noise, return_dict=False)[0]
            latents = latents if isinstance(latents, Tensor) else latents.mode()
            pixels = vae.decode(latents).sample
            assert seen == batches * 2
            vae.disable_slicing()
            torch.testing.assert_close(vae.decode(latents).sample, pixels, atol=1e-4, rtol=1e-3)


def test_the_generator_is_the_base_with_the_fast_child_fused(tiny_world: Checkpoints) -> None:
    fused, base = world.open_generator(tiny_world), world.open_pipeline(tiny_world)
    assert isinstance(fused.scheduler, LCMScheduler)
    assert not any(isinstance(module, LoraLayer) for module in fused.unet.modules())
    plain = _predict(base.unet)
    world.attach_fast_child(base, tiny_world)
    for module in (m for m in base.unet.modules() if isinstance(m, LoraLayer)):
        module.set_scale(world.FAST_CHILD, 1.0)
    torch.testing.assert_close(_predict(fused.unet), _predict(base.unet), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain, _predict(base.unet), atol=1e-3)


def test_the_fast_child_starts_at_scale_zero_and_frozen(tiny_world: Checkpoints) -> None:
    pipe = world.open_pipeline(tiny_world)
    plain = _predict(pipe.unet)
    world.attach_fast_child(pipe, tiny_world)
    torch.testing.assert_close(_predict(pipe.unet), plain)
    assert not any(p.requires_grad for p in pipe.unet.parameters())


def test_the_untuned_adapter_and_an_adapter_file_open_alike(tiny_world: Checkpoints) -> None:
    one, other = world.open_pipeline(tiny_world), world.open_pipeline(tiny_world)
    world.attach_adapter(one, tiny_world)
    world.attach_adapter(other, Path(tiny_world.adapter.source) / tiny_world.adapter.weight_name)
    assert any(isinstance(p, IPAdapterAttnProcessor2_0) for p in one.unet.attn_processors.values())
    torch.testing.assert_close(_predict(one.unet, image=True), _predict(other.unet, image=True))


def test_the_vae_may_come_from_elsewhere(tiny_world: Checkpoints) -> None:
    other = tiny_world.model_copy(update={"vae": str(Path(tiny_world.base) / "vae")})
    assert world.open_pipeline(other).vae.config.latent_channels == 4


def test_half_precision_is_honoured_and_the_preview_decoder_stays_in_float32(tiny_world: Checkpoints) -> None:
    half = tiny_world.model_copy(update={"precision": "bfloat16"})
    assert world.open_pipeline(half).unet.dtype is torch.bfloat16
    assert world.open_image_encoder(half)[0].dtype is torch.bfloat16
    assert world.open_preview_vae(half).dtype is torch.float32


def _attach(attach: Callable[..., None]) -> Open:
    return lambda checkpoints: attach(world.open_pipeline(checkpoints), checkpoints)


def _attach_file(name: str) -> Open:
    return lambda checkpoints: world.attach_adapter(world.open_pipeline(checkpoints), Path(name))


PARTS: list[tuple[str, Open]] = [
    ("base/unet/diffusion_pytorch_model.safetensors", world.open_pipeline),
    ("base/text_encoder_2/model.safetensors", world.open_generator),
    ("lcm_lora/pytorch_lora_weights.safetensors", _attach(world.attach_fast_child)),
    ("adapter/ip-adapter.safetensors", _attach(world.attach_adapter)),
    ("image_encoder/model.safetensors", world.open_image_encoder),
    ("preview_vae/diffusion_pytorch_model.safetensors", world.open_preview_vae),
    ("clip/open_clip_model.safetensors", world.open_scorer),
    ("faces/models/select/recogniser.onnx", lambda c: world.open_faces(c.faces.select, 64)),
    ("faces/models/report/detector.onnx", lambda c: world.open_faces(c.faces.report, 64)),
    ("faces/models/loss/recogniser.onnx", lambda c: world.recogniser_onnx(c.faces.loss)),
]


@pytest.mark.parametrize(("name", "opening"), PARTS, ids=[name for name, _ in PARTS])
def test_a_part_that_is_truncated_or_missing_is_named(own_world: Checkpoints, name: str, opening: Open) -> None:
    root = Path(own_world.base).parent
    path = root / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=re.escape(str(path))):
        opening(own_world)
    path.unlink()
    with pytest.raises(InputError, match=path.relative_to(root).parts[0]):
        opening(own_world)
    shutil.rmtree(path.parent)
    with pytest.raises(InputError, match=str(path.parent if path.parent.parent == root else path.parent.parent)):
        opening(own_world)


LACKING = [PARTS[number] for number in (0, 1, 2, 4, 5, 6)]


@pytest.mark.parametrize(("name", "opening"), LACKING, ids=[name for name, _ in LACKING])
def test_weights_that_a_checkpoint_lacks_are_never_drawn_from_chance(
    own_world: Checkpoints, name: str, opening: Open
) -> None:
    path = Path(own_world.base).parent / name
    tensors = load_file(path)
    del tensors[sorted(tensors)[len(tensors) // 2]]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(InputError, match="cannot be opened from"):
        opening(own_world)


@pytest.mark.parametrize("opening", [opening for name, opening in PARTS if name.endswith(".safetensors")])
def test_no_library_warns_while_a_world_opens(
    tiny_world: Checkpoints, opening: Open, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    for logger in loggers:
        logger.addHandler(caplog.handler)
    opening(tiny_world)
    for logger in loggers:
        logger.removeHandler(caplog.handler)
    assert not [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize(
    ("opening", "said"),
    [
        (lambda c: world.open_pipeline(c.model_copy(update={"vae": "some/models/none"})), "models/none is neither a"),
        (lambda c: world.open_pipeline(c.model_copy(update={"base": "somebody/thing"})), "somebody/thing"),  # offline
        (lambda c: world.open_faces("models/none", 64), "none is neither a folder"),
        (_attach_file("adapter.bin"), "pickled weights are not opened"),
        (_attach_file("none.safetensors"), r"none\.safetensors does not exist"),
    ],
)
def test_what_cannot_be_opened_is_one_error(tiny_world: Checkpoints, opening: Open, said: str) -> None:
    with pytest.raises(InputError, match=said):
        opening(tiny_world)


def test_an_adapter_of_another_model_is_refused(own_world: Checkpoints) -> None:
    path = Path(own_world.adapter.source) / own_world.adapter.weight_name
    shutil.copy(Path(own_world.base) / "vae" / "diffusion_pytorch_model.safetensors", path)
    with pytest.raises(InputError, match="image adapter cannot be opened"):
        world.attach_adapter(world.open_pipeline(own_world), own_world)


@pytest.mark.parametrize("statistics", [(None, None), ([0.1, -0.2, 0.3, 0.0], [0.5, 1.0, 2.0, 1.5])])
def test_latents_are_normalised_when_encoded_and_restored_when_decoded(
    tiny_world: Checkpoints, statistics: tuple[list[float] | None, list[float] | None]
) -> None:
    vae = world.open_pipeline(tiny_world).vae
    mean, std = statistics
    vae.register_to_config(latents_mean=mean, latents_std=std)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    latents = world.encode_latents(vae, pixels)
    with torch.no_grad():
        own = vae.encode(pixels).latent_dist.mode()
        shift, scale = torch.tensor(mean or [0.0]).view(1, -1, 1, 1), torch.tensor(std or [1.0]).view(1, -1, 1, 1)
        torch.testing.assert_close(latents, (own - shift) / scale * vae.config.scaling_factor)
        torch.testing.assert_close(world.decode_latents(vae, latents), vae.decode(own).sample, atol=1e-5, rtol=1e-4)
