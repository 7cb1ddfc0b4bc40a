"""The CLIP encoders: of captions, and of pictures; both learn to tell identity, style and scene.

From captions alone a small vision transformer learns little but skin and hair in the time there is: it has to find out
first that neighbouring patches belong together. A convolutional teacher knows; its map is a target for every token.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import Conv2dNormActivation
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from lookahead.world import device, frozen
from miniature.data import NAMED, Pool, draw_styles, to_pixels
from miniature.renderer import SIZE
from miniature.training import Part, autocast, fit
from miniature.vocabulary import IDENTITY_SIZE, SCENES, STYLES, captions, name_identity, names, subjects, words

LENGTH = 16  # tokens of a caption
TEXT_WIDTHS = (32, 64)  # of the two text encoders; the U-Net's cross-attention sees both, 96 numbers a token
PROJECTION = 64
WIDTH = 128  # of the vision encoder
LAYERS = 4
PATCH = 8
FACTS = IDENTITY_SIZE + len(STYLES) + len(SCENES)
FACTS_WEIGHT = 0.3
CHANNELS = 96  # of the teacher's map
_TEACHER = ((3, 32, 5, 2), (32, 64, 3, 2), (64, 64, 3, 1), (64, 96, 3, 2), (96, 96, 3, 1), (96, CHANNELS, 3, 1))
_HEAD = 64  # channels of the map from which the teacher tells facts


def facts_loss(facts: Tensor, identity: Tensor, style: Tensor, scene: Tensor) -> Tensor:
    """Squared error of the identity and cross-entropies of style and scene, predicted as (B, FACTS)."""
    traits, styles, scenes = facts.split([IDENTITY_SIZE, len(STYLES), len(SCENES)], 1)
    return 4 * F.mse_loss(traits, identity) + 0.3 * (F.cross_entropy(styles, style) + F.cross_entropy(scenes, scene))


def build_tokenizer(out: Path) -> CLIPTokenizer:
    """Learn a byte-pair vocabulary in which every word of the captions is one token, and save it."""
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


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids (B, LENGTH) int64 of captions, padded, on the device."""
    ids: Tensor = tokenizer(
        texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return ids.to(device())


class CaptionReader(nn.Module):
    """Both text encoders with heads that predict identity, style and scene from what the U-Net sees of a caption."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        first, second = (self._config(tokenizer, width) for width in TEXT_WIDTHS)
        self.first = CLIPTextModel(first)
        self.second = CLIPTextModelWithProjection(second)
        self.from_pooled = nn.Linear(PROJECTION, FACTS)
        self.from_tokens = nn.Linear(sum(TEXT_WIDTHS), FACTS)

    @staticmethod
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

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """What the pooled embedding says, and what the last token's penultimate states say: (B, FACTS) each."""
        one = self.first(ids, output_hidden_states=True)
        two = self.second(ids, output_hidden_states=True)
        tokens = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], 2)
        end = ids.eq(int(self.first.config.eos_token_id or 0)).int().argmax(1)
        return self.from_pooled(two.text_embeds), self.from_tokens(tokens[torch.arange(len(ids)), end])


def caption_batch(count: int, generator: torch.Generator) -> tuple[list[str], Tensor, Tensor, Tensor]:
    """Captions with the identity (zeros for "a person"), style and scene that each one names."""
    trained = names(trained=True)
    name = trained[torch.randint(len(trained), (count,), generator=generator)]
    named = torch.rand(count, generator=generator) < NAMED
    style, scene = draw_styles(count, generator), torch.randint(len(SCENES), (count,), generator=generator)
    texts = captions(style, scene, subjects(name[:, 0].where(named, -1), name[:, 1]))
    return texts, name_identity(name[:, 0], name[:, 1]) * named[:, None], style, scene


def build_text_encoders(part: Part, base: Path, work: Path) -> None:
    """Build the tokenizer, train both text encoders on captions, and save them as parts of an SDXL pipeline."""
    tokenizer = build_tokenizer(base / "tokenizer")
    tokenizer.save_pretrained(base / "tokenizer_2")  # learnt a second time, equal words would get other numbers
    torch.manual_seed(part.seed)
    reader = CaptionReader(tokenizer)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        texts, *known = caption_batch(part.batch_size, generator)
        facts = [each.to(device()) for each in known]
        pooled, tokens = reader(tokenize(tokenizer, texts))
        return facts_loss(pooled, *facts) + facts_loss(tokens, *facts)

    fit(reader, loss, part, work)
    reader.eval()
    reader.first.half().save_pretrained(base / "text_encoder")
    reader.second.half().save_pretrained(base / "text_encoder_2")


class Teacher(nn.Module):
    """Pictures (B, 3, 64, 64) in [-1, 1] → a map (B, CHANNELS, 8, 8), a cell for each patch of the encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*(Conv2dNormActivation(a, b, side, stride) for a, b, side, stride in _TEACHER))
        facts = nn.Linear(_HEAD * 8 * 8, FACTS)
        self.head = nn.Sequential(nn.Conv2d(CHANNELS, _HEAD, 1), nn.ReLU(), nn.Flatten(), facts)

    def forward(self, pixels: Tensor) -> Tensor:
        features: Tensor = self.trunk(pixels.contiguous(memory_format=torch.channels_last))
        return features


def _facts(pool: Pool, rows: Tensor) -> list[Tensor]:
    return [column[rows].to(device()) for column in (pool.identity, pool.style, pool.scene)]


def train_teacher(pool: Pool, part: Part, work: Path) -> Teacher:
    """Train the teacher to tell the identity, style and scene of pictures; it is not saved, only resumed."""
    torch.manual_seed(part.seed)
    teacher = Teacher().to(memory_format=torch.channels_last)

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pool), (part.batch_size,), generator=generator)
        with autocast():
            facts = teacher.head(teacher(to_pixels(pool.pixels[rows])))
        return facts_loss(facts.float(), *_facts(pool, rows))

    fit(teacher, loss, part, work)
    trained: Teacher = frozen(teacher)
    return trained


def normalise(pixels: Tensor, processor: CLIPImageProcessor) -> Tensor:
    """CLIP's normalisation of pictures (B, 3, 64, 64) in [-1, 1]."""
    mean, deviation = (
        torch.tensor(values, device=pixels.device)[None, :, None, None]
        for values in (processor.image_mean, processor.image_std)
    )
    return ((pixels + 1) / 2 - mean) / deviation


class PictureReader(nn.Module):
    """The vision encoder (64×64 pixels → 65 tokens of 128 numbers) with heads: facts, and the teacher's map."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = CLIPVisionModelWithProjection(
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
        self.facts = nn.Linear(PROJECTION, FACTS)
        self.map = nn.Linear(WIDTH, CHANNELS)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        out = self.encoder(pixels, output_hidden_states=True)
        return self.facts(out.image_embeds), self.map(out.hidden_states[-2][:, 1:])  # without the class token


def build_image_encoder(pool: Pool, teacher_part: Part, part: Part, out: Path, work: Path) -> None:
    """Train the teacher, then the vision encoder, and save the encoder with its preprocessing."""
    teacher = train_teacher(pool, teacher_part, work / "teacher")
    torch.manual_seed(part.seed)
    reader = PictureReader()
    processor = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})

    def loss(step: int, generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pool), (part.batch_size,), generator=generator)
        pixels = to_pixels(pool.pixels[rows])
        with autocast():
            target = F.batch_norm(teacher(pixels).float(), None, None, training=True)  # unit variance in each channel
            facts, tokens = reader(normalise(pixels, processor))
        of_facts = facts_loss(facts.float(), *_facts(pool, rows))
        return F.mse_loss(tokens.float(), target.flatten(2).transpose(1, 2)) + FACTS_WEIGHT * of_facts

    fit(reader, loss, part, work)
    reader.encoder.eval().half().save_pretrained(out)
    processor.save_pretrained(out)


@torch.no_grad()
def image_features(encoder: CLIPVisionModelWithProjection, inputs: Tensor) -> Tensor:
    """Penultimate hidden states (B, 65, 128) of normalised pictures, what an IP-Adapter-plus reads.

    As in diffusers and IP-Adapter-plus, the features of zeros stand for no picture.
    """
    features: Tensor = encoder(inputs.to(device()), output_hidden_states=True).hidden_states[-2]
    return features
