"""Opens the networks that encode pictures: the CLIP vision encoder of the adapter and the text-image scorer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lookahead.config import Checkpoints
from lookahead.world.devices import device, dtype, frozen
from lookahead.world.hub import find, opening


@dataclass(frozen=True)
class Scorer:
    """The text-image scorer: `preprocess` takes a PIL image, `tokenizer` a list of texts."""

    model: nn.Module
    preprocess: Callable[[Any], Tensor]
    tokenizer: Callable[[list[str]], Tensor]


def open_image_encoder(checkpoints: Checkpoints) -> tuple[CLIPVisionModelWithProjection, CLIPImageProcessor]:
    """Open the CLIP vision encoder, and the processor that diffusers makes for its size.

    Raises:
        InputError: it is missing or truncated.
    """
    source, variant = find("image_encoder", checkpoints)
    folder = str(Path(source, checkpoints.image_encoder.subfolder))
    with opening("image encoder", folder):
        model = CLIPVisionModelWithProjection.from_pretrained(
            folder, variant=variant, dtype=dtype(checkpoints), use_safetensors=True, local_files_only=True
        )
    size: Any = model.config.image_size
    processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    return frozen(model), processor


def open_scorer(checkpoints: Checkpoints) -> Scorer:
    """Open the text-image scorer with open_clip.

    Raises:
        InputError: it is missing or truncated.
    """
    import open_clip  # only here: training runs without it

    name, pretrained = checkpoints.scorer.model, checkpoints.scorer.pretrained
    folder, _ = find("scorer", checkpoints)
    with opening("text-image scorer", folder):
        model, preprocess = open_clip.create_model_from_pretrained(name, pretrained=pretrained, device=device())
        return Scorer(frozen(model), preprocess, open_clip.get_tokenizer(name))
