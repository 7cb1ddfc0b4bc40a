"""What CLIP says of a picture: its similarity to the prompt, and whether style and scene are what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lookahead.world import Scorer, device

Encoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Texts:
    """Unit text embeddings: of every prompt (S, C, D), of every style (S, D) and of every scene (C, D).

    A style's embedding is the mean over its prompts in all scenes, a scene's over all styles (prompt ensembling, CLIP
    section 3.1.4), so that the classes carry nothing of the prompt at hand.
    """

    prompts: Tensor
    styles: Tensor
    scenes: Tensor


@torch.no_grad()
def embed_texts(scorer: Scorer, prompts: list[list[str]]) -> Texts:
    """Embed the prompts of a grid, one row a style and one column a scene."""
    tokens = scorer.tokenizer([prompt for row in prompts for prompt in row]).to(device())
    encode = cast(Encoder, scorer.model.encode_text)
    embeddings = F.normalize(encode(tokens).float(), dim=-1).cpu()  # (S * C, D)
    grid = embeddings.reshape(len(prompts), len(prompts[0]), -1)  # (S, C, D)
    return Texts(grid, F.normalize(grid.mean(1), dim=-1), F.normalize(grid.mean(0), dim=-1))


@torch.no_grad()
def embed_pictures(scorer: Scorer, pictures: list[Image.Image]) -> Tensor:
    """Unit embeddings (B, D) of pictures, on the CPU."""
    pixels = torch.stack([scorer.preprocess(picture) for picture in pictures]).to(device())
    encode = cast(Encoder, scorer.model.encode_image)
    return F.normalize(encode(pixels).float(), dim=-1).cpu()


def score(pictures: Tensor, texts: Texts, style: Tensor, scene: Tensor) -> dict[str, Tensor]:
    """`clip_t`, and whether style, scene and both (`prompt`) are top-1 among all: columns of (B,) floats.

    Args:
        pictures: (B, D) unit embeddings.
        texts: the classes.
        style: (B,) int64, the style that was asked for.
        scene: (B,) int64, the scene that was asked for.
    """
    style_right = (pictures @ texts.styles.T).argmax(1) == style
    scene_right = (pictures @ texts.scenes.T).argmax(1) == scene
    clip_t = (pictures * texts.prompts[style, scene]).sum(1)
    rights = {"style_right": style_right, "scene_right": scene_right, "prompt": style_right & scene_right}
    return {"clip_t": clip_t} | {name: right.float() for name, right in rights.items()}
