"""The tiny world's pipelines, opened once for these tests."""

import pytest
import torch

from lookahead import world
from lookahead.config import Checkpoints


@pytest.fixture(scope="module")
def pipeline(tiny_world: Checkpoints) -> world.Pipeline:
    """The base with the fast child (off) and the untuned adapter."""
    pipe = world.open_pipeline(tiny_world)
    world.attach_fast_child(pipe, tiny_world)
    world.attach_adapter(pipe, tiny_world)
    return pipe


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    """What the tiny U-Net is given: latents, timesteps, prompt tokens and SDXL's other conditions, two of each."""
    generator = torch.Generator().manual_seed(seed)
    noisy, tokens = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 16, 96, generator=generator)
    conditions = {"text_embeds": torch.randn(2, 64, generator=generator), "time_ids": torch.full((2, 6), 64.0)}
    return noisy, torch.tensor([100, 900]), tokens, conditions


def predict(unet, noisy, t, tokens, conditions) -> torch.Tensor:
    return unet(noisy, t, encoder_hidden_states=tokens, added_cond_kwargs=conditions).sample
