"""The fast child's strength: 0 is the base, 1 the full LoRA, and gradients survive checkpointing."""

from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor

from lookahead import world
from lookahead.config import Checkpoints
from lookahead.errors import InputError
from lookahead.method.lora_scale import lora_scale
from lookahead.models.adapter import adapter_parameters
from lookahead.models.fast_child import child_at, hold_scale_as_tensor, lora_layers, switch_off
from tests.models.conftest import inputs, predict


def drawn(unet: torch.nn.Module) -> Tensor:
    noisy, t, tokens, conditions = inputs()
    image = torch.randn(2, 1, 17, 32, generator=torch.Generator().manual_seed(0))
    return predict(unet, noisy, t, tokens, conditions | {"image_embeds": [image]})


@torch.no_grad()
def output(unet: torch.nn.Module) -> Tensor:
    return drawn(unet)


@pytest.fixture(scope="module")
def base(tiny_world: Checkpoints) -> Tensor:
    pipe = world.open_pipeline(tiny_world)
    world.attach_adapter(pipe, tiny_world)
    return output(pipe.unet)


@pytest.fixture
def layers(pipeline):
    return lora_layers(pipeline.unet, world.FAST_CHILD)


def test_scale_0_is_the_base_exactly_and_strengths_lie_between(pipeline, layers, base):
    assert torch.equal(output(pipeline.unet), base)
    away = []
    for scale in (0.0, 0.1, 0.5, 1.0):
        with child_at(layers, world.FAST_CHILD, scale):
            away.append((output(pipeline.unet) - base).norm().item())
            assert not any(p.requires_grad for p in pipeline.unet.parameters())
    assert away == sorted(away) and away[0] == 0 < away[1]
    switch_off(layers)
    assert torch.equal(output(pipeline.unet), base)
    assert not any(p.requires_grad for p in pipeline.unet.parameters())


def test_scale_1_is_the_full_lora(pipeline, layers, tiny_world, base):
    whole = world.open_pipeline(tiny_world)
    whole.load_lora_weights(tiny_world.fast_child.source, weight_name="pytorch_lora_weights.safetensors")
    world.attach_adapter(whole, tiny_world)
    with child_at(layers, world.FAST_CHILD, 1.0):
        assert torch.equal(output(pipeline.unet), output(whole.unet))
    assert not torch.allclose(output(whole.unet), base, atol=1e-3)
    assert torch.equal(output(pipeline.unet), base)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_strength_held_as_a_tensor_gives_the_same_numbers(tiny_world, precision):
    """Bit for bit, and a tensor in float32 does not turn bfloat16 into float32."""
    pipe = world.open_pipeline(tiny_world.model_copy(update={"precision": precision}))
    world.attach_fast_child(pipe, tiny_world)
    layer = lora_layers(pipe.unet, world.FAST_CHILD)[0]
    x = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0)).to(pipe.unet.dtype)  # a convolution
    with torch.no_grad(), child_at([layer], world.FAST_CHILD, 0.37):
        number = layer(x)
    hold_scale_as_tensor([layer], world.FAST_CHILD)
    with torch.no_grad(), child_at([layer], world.FAST_CHILD, 0.37):
        assert isinstance(layer.scaling[world.FAST_CHILD], Tensor)
        tensor = layer(x)
    assert torch.equal(tensor, number) and tensor.dtype == x.dtype
    assert not torch.equal(number, layer.base_layer(x))


def gradients(unet: torch.nn.Module, inside: AbstractContextManager, backward_inside: bool) -> dict[str, Tensor]:
    """The adapter's under checkpointing, with `backward()` inside of a context or after it."""
    trained = adapter_parameters(unet)
    unet.enable_gradient_checkpointing()
    for p in trained.values():
        p.requires_grad_(True)
    try:
        with inside:
            loss = drawn(unet).square().mean()
            if backward_inside:
                loss.backward()
        if not backward_inside:
            loss.backward()
        return {name: p.grad for name, p in trained.items()}
    finally:
        unet.disable_gradient_checkpointing()
        for p in trained.values():
            p.requires_grad_(False)
            p.grad = None


def test_backward_outside_is_an_error_or_wrong_with_checkpointing(pipeline, layers):
    """Why `backward()` belongs inside. Where the child is off again, torch notices; where its strength alone is
    restored, it does not, and the gradients are wrong."""
    with pytest.raises(torch.utils.checkpoint.CheckpointError):
        gradients(pipeline.unet, child_at(layers, world.FAST_CHILD, 0.6), backward_inside=False)
    with child_at(layers, world.FAST_CHILD, 0.1):
        right = gradients(pipeline.unet, lora_scale(layers, world.FAST_CHILD, 0.6), backward_inside=True)
        wrong = gradients(pipeline.unet, lora_scale(layers, world.FAST_CHILD, 0.6), backward_inside=False)
    error = sum((wrong[n] - g).norm() for n, g in right.items()) / sum(g.norm() for g in right.values())
    assert error > 0.01


def test_a_missing_child_is_named(pipeline):
    with pytest.raises(InputError, match="'no such child'"):
        lora_layers(pipeline.unet, "no such child")
