"""Extended self-attention on one attention layer of diffusers."""

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn

from lookahead.method.attention import AppendKeysValues, CaptureKeysValues, appended
from lookahead.method.shared_pass import as_leaves, backward_through, drop_tokens


@pytest.fixture
def attn() -> Attention:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Attention(query_dim=16, heads=2, dim_head=8, processor=AttnProcessor2_0())


def hidden(count: int = 2, tokens: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, tokens, 16, generator=torch.Generator().manual_seed(seed))


def test_capturing_changes_nothing_and_keeps_the_projections(attn):
    x, bank = hidden(), {}
    plain = attn(x)
    keys, values = nn.Linear(16, 16), nn.Linear(16, 16)
    attn.set_processor(CaptureKeysValues("layer", bank, keys, values))
    assert torch.equal(attn(x), plain)
    assert bank == {}  # nobody asked
    bank["layer"] = None
    attn(x)
    assert torch.equal(bank["layer"][0], keys(x)) and torch.equal(bank["layer"][1], values(x))


def test_extended_attention_is_attention_over_both_sets_of_tokens(attn):
    """K := K_r ∘ K_c: equal to a layer whose keys and values come from the tokens of both."""
    x, other, bank = hidden(), hidden(tokens=4, seed=1), {}
    expected = attn(x, encoder_hidden_states=torch.cat([x, other], 1))
    plain = attn(x)
    attn.set_processor(AppendKeysValues("layer", bank))
    assert torch.equal(attn(x), plain)  # nothing is appended
    with appended(bank, {"layer": (attn.to_k(other), attn.to_v(other))}):
        torch.testing.assert_close(attn(x), expected)


def test_the_bank_is_emptied_also_after_an_exception():
    bank = {}
    with pytest.raises(RuntimeError), appended(bank, {"layer": (torch.zeros(1), torch.zeros(1))}):
        raise RuntimeError
    assert bank == {}


def test_dropping_keeps_a_share_of_the_pairs():
    keys = torch.arange(40.0).view(2, 20, 1).expand(-1, -1, 3)
    dropped = drop_tokens({"a": (keys, -keys), "b": (keys, -keys)}, 0.25, torch.Generator().manual_seed(0))
    for kept, values in dropped.values():
        assert kept.shape == (2, 15, 3) and torch.equal(kept, -values)  # a key stays with its value
        assert all(len(set(row)) == 15 for row in kept[..., 0].tolist())
    assert not torch.equal(dropped["a"][0], dropped["b"][0])
    assert not torch.equal(dropped["a"][0][0] + 20, dropped["a"][0][1])  # each sample drops others
    same = {"a": (keys, -keys)}
    assert drop_tokens(same, 0.0, torch.Generator()) is same


def test_one_backward_carries_what_several_losses_gathered():
    weight = nn.Parameter(hidden(1, 1))
    shared = {"a": (weight * 2, weight * 3), "b": (weight * 5, weight * 7)}
    leaves = as_leaves(shared)
    (leaves["a"][0].sum() + leaves["a"][1].sum()).backward()
    leaves["a"][0].sum().backward()  # the second loss; layer b is used by neither
    assert weight.grad is None
    backward_through(shared, leaves)
    torch.testing.assert_close(weight.grad, torch.full_like(weight, 2 + 3 + 2))
    backward_through({}, {})
