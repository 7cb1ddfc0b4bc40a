"""Opens the networks that look at pictures: the CLIP vision encoder of the adapter and the text-image scorer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from lookahead.config import Checkpoints
from lookahead.world.devices import device, dtype, frozen
from lookahead.world.hub import hub_parts, place, require
from lookahead.world.sources import check_folder, opening


@dataclass(frozen=True)
class Scorer:
    """The text-image scorer: `preprocess` takes a PIL image, `tokenizer` a list of texts."""

    model: nn.Module
    preprocess: Callable[[Any], Tensor]
    tokenizer: Callable[[list[str]], Tensor]


def open_image_encoder(checkpoints: Checkpoints) -> tuple[CLIPVisionModelWithProjection, CLIPImageProcessor]:
    """Open the CLIP vision encoder and the processor for its size, which diffusers also makes from the size alone.

    Raises:
        InputError: it is missing or truncated.
    """
    source, variant = place("image_encoder", checkpoints)
    folder = str(Path(source, checkpoints.image_encoder.subfolder))
    with opening("image encoder", folder):
        model = CLIPVisionModelWithProjection.from_pretrained(
            folder, variant=variant, dtype=dtype(checkpoints), use_safetensors=True
        )
    size: Any = model.config.image_size
    processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    return frozen(model), processor


def open_scorer(checkpoints: Checkpoints) -> Scorer:
    """Open the text-image scorer with open_clip.

    Raises:
        InputError: it is missing or truncated.
    """
    import open_clip  # what is only for this is imported here: training's functions run without it

    name, pretrained = checkpoints.scorer.model, checkpoints.scorer.pretrained
    if name.startswith("local-dir:"):
        check_folder(name.removeprefix("local-dir:"))
    if any(part.name == "scorer" and part.missing() for part in hub_parts(checkpoints)):
        require(checkpoints)
    with opening("text-image scorer", name):
        model, preprocess = open_clip.create_model_from_pretrained(name, pretrained=pretrained, device=device())
        return Scorer(frozen(model), preprocess, open_clip.get_tokenizer(name))
