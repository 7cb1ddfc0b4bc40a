"""The KV-encoder on the tiny world: one copy of the frozen weights, its LoRAs, its file."""

from pathlib import Path

import pytest
import torch

from lookahead import world
from lookahead.errors import InputError
from lookahead.method.attention import appended
from lookahead.models.kv_encoder import (
    KV_FILE,
    KVEncoder,
    extend_self_attention,
    new_kv_encoder,
    open_kv_encoder,
    save_kv_encoder,
)
from tests.models.conftest import inputs, predict
from tests.pipeline.conftest import moved


@pytest.fixture
def unet(tiny_world):
    return world.open_pipeline(tiny_world).unet


@pytest.fixture
def encoder(unet) -> KVEncoder:
    return new_kv_encoder(unet, 2, 3, seed=0)


def test_opening_it_leaves_the_base_and_the_global_generator_alone(unet):
    state = torch.random.get_rng_state()
    with torch.no_grad():
        before = predict(unet, *inputs())
        first, second = (new_kv_encoder(unet, 2, 3, seed=5) for _ in range(2))
        assert all(torch.equal(first.parameters()[name], p) for name, p in second.parameters().items())
        moved(first)
        assert torch.equal(predict(unet, *inputs()), before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_frozen_weights_are_in_memory_once(unet, encoder):
    held = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    own = set(map(id, encoder.parameters().values()))
    every = [*encoder.unet.parameters(), *encoder.shared.parameters()]
    frozen = [p for p in every if id(p) not in own]
    assert frozen and all(p.untyped_storage().data_ptr() in held for p in frozen)
    assert all(p.untyped_storage().data_ptr() not in held for p in encoder.parameters().values())
    assert all(p.requires_grad == (id(p) in own) for p in every)


def test_untuned_it_shares_the_bases_own_keys_and_values(unet, encoder):
    """And then denoising the reference with its own keys and values twice is plain self-attention."""
    bank = extend_self_attention(unet)
    with torch.no_grad():
        plain = predict(unet, *inputs())
        shared = encoder.encode(*inputs())
        with appended(bank, shared):
            torch.testing.assert_close(predict(unet, *inputs()), plain, rtol=1e-4, atol=1e-5)
        assert torch.equal(predict(unet, *inputs()), plain)
    assert sorted(shared) == sorted(name for name, _ in unet.named_modules() if name.endswith("attn1"))


def test_tuned_it_changes_what_the_denoiser_draws(unet, encoder):
    bank = extend_self_attention(unet)
    moved(encoder)
    with torch.no_grad():
        plain = predict(unet, *inputs())
        with appended(bank, encoder.encode(*inputs(1))):
            assert (predict(unet, *inputs()) - plain).abs().max() > 1e-3


def test_a_file_brings_it_back_with_its_ranks(unet, encoder, tmp_path):
    save_kv_encoder(tmp_path / KV_FILE, moved(encoder))
    again = open_kv_encoder(tmp_path / KV_FILE, unet)
    for name, weight in encoder.parameters().items():
        assert torch.equal(again.parameters()[name], weight), name
    with torch.no_grad():
        first, second = encoder.encode(*inputs()), again.encode(*inputs())
    assert all(torch.equal(first[name][i], second[name][i]) for name in first for i in range(2))


def test_another_file_is_refused(unet, encoder, tiny_world, tmp_path):
    adapter = Path(tiny_world.adapter.source) / tiny_world.adapter.weight_name
    with pytest.raises(InputError, match="holds no KV-encoder"):
        open_kv_encoder(adapter, unet)
    save_kv_encoder(tmp_path / KV_FILE, encoder)
    (tmp_path / KV_FILE).write_bytes((tmp_path / KV_FILE).read_bytes()[:-40])
    with pytest.raises(InputError, match=KV_FILE):
        open_kv_encoder(tmp_path / KV_FILE, unet)
