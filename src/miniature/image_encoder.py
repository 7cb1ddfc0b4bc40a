"""The miniature's CLIP vision encoder, which learns what captions would say of pictures, and a teacher's view of them.

From captions alone a small transformer learns little but skin and hair in the time there is: it has to find out first
that neighbouring patches belong together. A convolutional teacher knows; its map tells every token what to see.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from lookahead.artifacts import Log
from lookahead.config import Part
from miniature.autoencoders import pixels_of
from miniature.fitting import fit
from miniature.image_teacher import CHANNELS, train_teacher
from miniature.people import IDENTITY_SIZE
from miniature.pool import Pool
from miniature.renderer import SIZE
from miniature.text import PROJECTION, facts_loss
from miniature.words import SCENES, STYLES

WIDTH = 128
LAYERS = 4
PATCH = 8
FACTS_WEIGHT = 0.3


def new_image_encoder() -> CLIPVisionModelWithProjection:
    """An untrained vision encoder: 64×64 pixels → 65 tokens of 128 numbers."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
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
    """The encoder with heads that tell facts from its embedding, and the teacher's map from its tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = new_image_encoder()
        self.facts = nn.Linear(PROJECTION, IDENTITY_SIZE + len(STYLES) + len(SCENES))
        self.map = nn.Linear(WIDTH, CHANNELS)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        out = self.encoder(pixels, output_hidden_states=True)
        return self.facts(out.image_embeds), self.map(out.hidden_states[-2][:, 1:])  # without the class token


def build_image_encoder(pool: Pool, teacher_part: Part, part: Part, out: Path, work: Path, log: Log) -> None:
    """Train the teacher, then the vision encoder, and save the encoder with its preprocessing."""
    teacher = train_teacher(pool, teacher_part, work / "teacher", log)
    torch.manual_seed(part.seed)
    reader, processor = _PictureReader(), new_processor()

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pool), (part.batch,), generator=generator)
        pixels = pixels_of(pool, rows)
        with torch.autocast("cpu", torch.bfloat16):
            seen = F.batch_norm(teacher(pixels).float(), None, None, training=True)  # unit variance in each channel
            facts, tokens = reader(normalise(pixels, processor))
        told = facts_loss(facts.float(), pool.identity[rows], pool.style[rows], pool.scene[rows])
        return F.mse_loss(tokens.float(), seen.flatten(2).transpose(1, 2)) + FACTS_WEIGHT * told

    fit(reader, loss, part, work, log)
    reader.encoder.eval().half().save_pretrained(out)
    processor.save_pretrained(out)


@torch.no_grad()
def null_features(encoder: CLIPVisionModelWithProjection) -> Tensor:
    """What stands for no picture, as in diffusers and IP-Adapter-plus: the features (1, 65, 128) of zeros."""
    features: Tensor = encoder(torch.zeros(1, 3, SIZE, SIZE), output_hidden_states=True).hidden_states[-2]
    return features


@torch.no_grad()
def image_features(encoder: CLIPVisionModelWithProjection, processor: CLIPImageProcessor, pixels: Tensor) -> Tensor:
    """Penultimate hidden states (B, 65, 128), what an IP-Adapter-plus reads."""
    features: Tensor = encoder(normalise(pixels, processor), output_hidden_states=True).hidden_states[-2]
    return features
