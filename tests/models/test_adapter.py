"""The adapter's parameters and its way through a file and back through diffusers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lookahead import world
from lookahead.errors import InputError
from lookahead.models.adapter import adapter_parameters, export_adapter, save_adapter


def test_export_equals_the_file_that_was_loaded(pipeline, tiny_world):
    original = load_file(Path(tiny_world.adapter.source) / tiny_world.adapter.weight_name)
    exported = export_adapter(pipeline.unet)
    assert exported.keys() == original.keys()
    assert all(torch.equal(exported[name], tensor) for name, tensor in original.items())


def test_changed_weights_return_through_load_ip_adapter(tiny_world, tmp_path):
    pipe, other = world.open_pipeline(tiny_world), world.open_pipeline(tiny_world)
    world.attach_adapter(pipe, tiny_world)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in adapter_parameters(pipe.unet).values():
            p.add_(torch.randn(p.shape, generator=generator))
    save_adapter(tmp_path / "ip-adapter.safetensors", pipe.unet)
    name = "ip-adapter.safetensors"
    other.load_ip_adapter(str(tmp_path), subfolder="", weight_name=name, image_encoder_folder=None)
    loaded, saved = adapter_parameters(other.unet), adapter_parameters(pipe.unet)
    assert loaded.keys() == saved.keys() and all(torch.equal(loaded[name], p) for name, p in saved.items())


def test_a_unet_without_adapter_is_refused(tiny_world):
    with pytest.raises(InputError, match="IP-Adapter-plus"):
        adapter_parameters(world.open_pipeline(tiny_world).unet)
