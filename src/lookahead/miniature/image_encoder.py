"""The miniature's CLIP vision encoder, which learns from pictures what captions would say of them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from lookahead.artifacts import Log
from lookahead.config import Part
from lookahead.miniature.autoencoders import pixels_of
from lookahead.miniature.fitting import fit
from lookahead.miniature.people import IDENTITY_SIZE
from lookahead.miniature.pool import Pool
from lookahead.miniature.renderer import SIZE
from lookahead.miniature.text import PROJECTION, facts_loss
from lookahead.miniature.words import SCENES, STYLES

WIDTH = 96
LAYERS = 3
PATCH = 8


def new_image_encoder() -> CLIPVisionModelWithProjection:
    """An untrained vision encoder: 64×64 pixels → 65 tokens of 96 numbers."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=3,
            image_size=SIZE,
            patch_size=PATCH,
            projection_dim=PROJECTION,
        )
    )


def new_processor() -> CLIPImageProcessor:
    """CLIP's preprocessing at 64 pixels."""
    side = {"height": SIZE, "width": SIZE}
    return CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=side)


def normalise(pixels: Tensor, processor: CLIPImageProcessor) -> Tensor:
    """CLIP's normalisation of pictures (B, 3, 64, 64) in [-1, 1]."""
    mean, deviation = (
        torch.tensor(values)[None, :, None, None] for values in (processor.image_mean, processor.image_std)
    )
    return ((pixels + 1) / 2 - mean) / deviation


class _PictureReader(nn.Module):
    """The encoder with heads that tell identity, style and scene from its pooled embedding and its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = new_image_encoder()
        facts = IDENTITY_SIZE + len(STYLES) + len(SCENES)
        self.from_pooled = nn.Linear(PROJECTION, facts)
        self.from_tokens = nn.Linear(WIDTH, facts)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        out = self.encoder(pixels, output_hidden_states=True)
        return self.from_pooled(out.image_embeds), self.from_tokens(out.hidden_states[-2].mean(1))


def build_image_encoder(pool: Pool, part: Part, out: Path, work: Path, log: Log) -> None:
    """Train the vision encoder and save it with its preprocessing."""
    torch.manual_seed(part.seed)
    reader, processor = _PictureReader(), new_processor()

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pool), (part.batch,), generator=generator)
        pooled, tokens = reader(normalise(pixels_of(pool, rows), processor))
        facts = pool.identity[rows], pool.style[rows], pool.scene[rows]
        return facts_loss(pooled, *facts) + facts_loss(tokens, *facts)

    fit(reader, loss, part, work, log)
    reader.encoder.eval().half().save_pretrained(out)
    processor.save_pretrained(out)


@torch.no_grad()
def null_features(encoder: CLIPVisionModelWithProjection) -> Tensor:
    """What stands for no picture, as in diffusers and IP-Adapter-plus: the features (1, 65, 96) of zeros."""
    features: Tensor = encoder(torch.zeros(1, 3, SIZE, SIZE), output_hidden_states=True).hidden_states[-2]
    return features


@torch.no_grad()
def image_features(encoder: CLIPVisionModelWithProjection, processor: CLIPImageProcessor, pixels: Tensor) -> Tensor:
    """Penultimate hidden states (B, 65, 96), what an IP-Adapter-plus reads."""
    features: Tensor = encoder(normalise(pixels, processor), output_hidden_states=True).hidden_states[-2]
    return features
