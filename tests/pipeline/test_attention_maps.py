"""Attention to the reference: the shares are right, and recording changes no picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention
from PIL import Image

from lookahead.config import with_overrides
from lookahead.errors import InputError
from lookahead.pipeline import LookaheadPipeline
from lookahead.pipeline.attention_maps import as_grid, draw_with_attention, reference_attention

PROMPT = "a photo of a person in the snow"


def test_a_reference_equal_to_the_target_gets_half_of_each_positions_attention() -> None:
    torch.manual_seed(0)
    attn = Attention(query_dim=32, heads=4, dim_head=8)
    hidden = torch.randn(2, 9, 32)
    with torch.no_grad():
        seen = reference_attention(attn, hidden, attn.to_k(hidden))
        alone = attn.get_attention_scores(*(attn.head_to_batch_dim(p(hidden)) for p in (attn.to_q, attn.to_k)))
    assert torch.allclose(seen.sum(1), torch.full((9,), 0.5), atol=1e-6)
    assert torch.allclose(seen, alone.mean(0) / 2, atol=1e-6)


def test_every_self_attention_layer_has_a_map_of_its_portrait_and_the_picture_stays(
    pipe: LookaheadPipeline, photos: list[Image.Image]
) -> None:
    picture, maps = draw_with_attention(pipe, photos[0], PROMPT, seed=3)
    layers = [name for name, _ in pipe.base.unet.named_modules() if name.endswith(".attn1")]
    assert set(maps) == set(layers) and layers
    for seen in maps.values():
        shares = seen.sum(1)
        assert seen.shape[0] == seen.shape[1] and shares.min() > 0 and shares.max() < 1
    plain = pipe(photos[0], PROMPT, seed=3, kv=True)[0]
    assert np.array_equal(np.asarray(plain), np.asarray(picture))
    other = draw_with_attention(pipe, photos[1], PROMPT, seed=3)[1]
    assert any(not torch.allclose(maps[name], other[name]) for name in maps)


def test_an_encoder_or_a_setting_without_maps_is_refused(pipe: LookaheadPipeline, photos: list[Image.Image]) -> None:
    untuned = LookaheadPipeline(pipe.checkpoints, pipe.settings, None)
    with pytest.raises(InputError, match="no KV-encoder"):
        draw_with_attention(untuned, photos[0], PROMPT, seed=0)
    settings = with_overrides(pipe.settings, {"num_inference_steps": 1})
    with pytest.raises(InputError, match="2 steps"):
        draw_with_attention(LookaheadPipeline(pipe.checkpoints, settings, pipe.encoder), photos[0], PROMPT, seed=0)


def test_positions_are_row_by_row() -> None:
    assert as_grid(torch.arange(9)).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
