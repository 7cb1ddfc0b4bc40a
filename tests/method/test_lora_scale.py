"""alpha_LoRA: its draws, and setting it for a while, on plain layers that know nothing of peft."""

import pytest
import torch

from lookahead.method.lora_scale import draw_scale, lora_scale


class Layer:
    """The least that a layer needs: a strength for each adapter, in units of its own (peft: alpha / rank)."""

    def __init__(self) -> None:
        self.scaling: dict[str, float | torch.Tensor] = {"child": 0.0, "other": 7.0}

    def set_scale(self, adapter: str, scale: float) -> None:
        self.scaling[adapter] = 2 * scale


def test_draws_lie_in_the_range_or_are_one():
    generator = torch.Generator().manual_seed(0)
    draws = torch.tensor([draw_scale(0.1, 0.6, 0.5, generator) for _ in range(4000)])
    assert (draws == 1).float().mean().item() == pytest.approx(0.5, abs=0.03)
    rest = draws[draws != 1]
    assert rest.min() >= 0.1 and rest.max() <= 0.6
    assert rest.mean().item() == pytest.approx(0.35, abs=0.02)
    first, second = (draw_scale(0.1, 1, 0, torch.Generator().manual_seed(5)) for _ in range(2))
    assert first == second < 1


def test_scale_is_set_inside_and_restored_after_also_by_an_error():
    layers = [Layer(), Layer()]
    with lora_scale(layers, "child", 0.5):
        assert [layer.scaling for layer in layers] == [{"child": 1.0, "other": 7.0}] * 2
        with lora_scale(layers, "child", 1.0):
            assert layers[0].scaling["child"] == 2.0
        assert layers[1].scaling["child"] == 1.0
    assert [layer.scaling["child"] for layer in layers] == [0.0, 0.0]
    with pytest.raises(RuntimeError), lora_scale(layers, "child", 1.0):
        raise RuntimeError
    assert [layer.scaling["child"] for layer in layers] == [0.0, 0.0]


def test_a_factor_that_was_a_tensor_stays_one():
    """Compiled code takes it as an input; one tensor serves all layers of equal factors."""
    layers, before = [Layer(), Layer()], torch.zeros(())
    for layer in layers:
        layer.scaling["child"] = before
    with pytest.raises(RuntimeError), lora_scale(layers, "child", 0.25):
        inside = [layer.scaling["child"] for layer in layers]
        assert inside[0] is inside[1] and torch.equal(inside[0], torch.tensor(0.5))
        raise RuntimeError
    assert all(layer.scaling["child"] is before for layer in layers) and before == 0
