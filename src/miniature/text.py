"""The miniature's tokenizer and its two CLIP text encoders, which learn what captions say of a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lookahead.artifacts import Log
from lookahead.config import Part
from miniature.fitting import fit
from miniature.people import IDENTITY_SIZE, name_identity
from miniature.pool import NAMED, draw_styles, trained_names
from miniature.words import FIRST, LAST, NOBODY, SCENES, STYLES, caption, words

LENGTH = 16  # tokens
WIDTHS = (32, 64)  # of the two text encoders; the U-Net's cross-attention sees both, 96 numbers a token
PROJECTION = 64


def build_tokenizer(out: Path) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary in which every word of the captions is one token, and save it.

    Raises:
        AssertionError: a word is not one token.
    """
    start, end = "<|startoftext|>", "<|endoftext|>"
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=end))
    learner.pre_tokenizer = pre_tokenizers.Whitespace()
    learner.train_from_iterator(
        words(),
        trainers.BpeTrainer(
            vocab_size=10_000, special_tokens=[start, end], end_of_word_suffix="</w>", show_progress=False
        ),
    )
    model = json.loads(learner.to_str())["model"]
    merges: Any = [tuple(merge) for merge in model["merges"]]  # annotated as strings, wanted as pairs
    tokenizer = CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=LENGTH)
    assert all(len(tokenizer(word).input_ids) == 3 for word in words())
    tokenizer.save_pretrained(out)
    return tokenizer


def tokenize(tokenizer: CLIPTokenizer, captions: list[str]) -> Tensor:
    """Token ids (B, LENGTH) int64 of captions, padded."""
    ids: Tensor = tokenizer(
        captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def _config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=PROJECTION,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


class CaptionReader(nn.Module):
    """Both text encoders with heads that tell identity, style and scene from what the U-Net will see of a caption."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.first = CLIPTextModel(_config(tokenizer, WIDTHS[0]))
        self.second = CLIPTextModelWithProjection(_config(tokenizer, WIDTHS[1]))
        facts = IDENTITY_SIZE + len(STYLES) + len(SCENES)
        self.from_pooled = nn.Linear(PROJECTION, facts)
        self.from_tokens = nn.Linear(sum(WIDTHS), facts)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The facts read from the pooled embedding and from the last token's penultimate states: (B, facts) each."""
        one = self.first(ids, output_hidden_states=True)
        two = self.second(ids, output_hidden_states=True)
        tokens = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], 2)
        end = ids.eq(int(self.first.config.eos_token_id or 0)).int().argmax(1)
        return self.from_pooled(two.text_embeds), self.from_tokens(tokens[torch.arange(len(ids)), end])


def caption_batch(count: int, generator: torch.Generator) -> tuple[list[str], Tensor, Tensor, Tensor]:
    """Captions with the identity (zeros for "a person"), style and scene that each tells."""
    names = trained_names()
    name = names[torch.randint(len(names), (count,), generator=generator)]
    named = torch.rand(count, generator=generator) < NAMED
    style, scene = draw_styles(count, generator), torch.randint(len(SCENES), (count,), generator=generator)
    subjects = [
        f"{FIRST[i]} {LAST[j]}" if known else NOBODY
        for (i, j), known in zip(name.tolist(), named.tolist(), strict=True)
    ]
    captions = [
        caption(tuple(STYLES)[s], tuple(SCENES)[c], who) for s, c, who in zip(style, scene, subjects, strict=True)
    ]
    return captions, name_identity(name[:, 0], name[:, 1]) * named[:, None], style, scene


def facts_loss(facts: Tensor, identity: Tensor, style: Tensor, scene: Tensor) -> Tensor:
    """Squared error of the identity and cross-entropies of style and scene, read from (B, facts)."""
    traits, styles, scenes = facts.split([IDENTITY_SIZE, len(STYLES), len(SCENES)], 1)
    return 4 * F.mse_loss(traits, identity) + 0.3 * (F.cross_entropy(styles, style) + F.cross_entropy(scenes, scene))


def build_text_encoders(tokenizer: CLIPTokenizer, part: Part, out: Path, work: Path, log: Log) -> None:
    """Train both text encoders on captions and save them as an SDXL pipeline's `text_encoder` and `text_encoder_2`."""
    torch.manual_seed(part.seed)
    reader = CaptionReader(tokenizer)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        captions, identity, style, scene = caption_batch(part.batch, generator)
        pooled, tokens = reader(tokenize(tokenizer, captions))
        return facts_loss(pooled, identity, style, scene) + facts_loss(tokens, identity, style, scene)

    fit(reader, loss, part, work, log)
    reader.eval()
    reader.first.half().save_pretrained(out / "text_encoder")
    reader.second.half().save_pretrained(out / "text_encoder_2")
