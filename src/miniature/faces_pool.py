"""The pictures that detector and recognisers train on, drawn once, shard by shard, with their annotation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import load_tensors, save_tensors
from miniature.renderer import Framing, draw_identities, faceless, render
from miniature.words import SCENES, STYLES

PEOPLE = 2400
PHOTOS = 3
PICTURES = 6  # a person: the first PHOTOS are photos, the others drawings and paintings
WIDE = 21_000  # pictures for the detector, every one of another person; of 7,000 it learnt the landmarks by heart
EMPTY = 1500  # pictures without a face
_PEOPLE_A_SHARD = 200


@dataclass(frozen=True)
class Faces:
    """Annotated pictures in memory; coordinates are pixels."""

    pixels: Tensor  # (N, 3, 64, 64) uint8
    landmarks: Tensor  # (N, 5, 2)
    boxes: Tensor  # (N, 4)
    identity: Tensor  # (N, IDENTITY_SIZE)


def to_bytes(pixels: Tensor) -> Tensor:
    """Pictures in [-1, 1] as uint8."""
    return ((pixels + 1) * 127.5).round().clamp(0, 255).byte()


def draw_faces(people: Tensor, style: Tensor, generator: torch.Generator, framing: Framing) -> Faces:
    """Draw one picture for each row of `people` in random scenes."""
    scene = torch.randint(len(SCENES), (len(people),), generator=generator)
    drawn = render(people, style, scene, generator, framing)
    return Faces(to_bytes(drawn.pixels), drawn.landmarks, drawn.boxes, people)


def styles_of_people(people: int, generator: torch.Generator) -> Tensor:
    """Styles (people * PICTURES,): PHOTOS photos, then drawings in random styles, person by person."""
    styles = torch.zeros(people, PICTURES, dtype=torch.int64)
    styles[:, PHOTOS:] = torch.randint(1, len(STYLES), (people, PICTURES - PHOTOS), generator=generator)
    return styles.flatten()


def _cached(path: Path, draw: Faces | None) -> Faces:
    if draw is not None:
        fields = {"pixels": draw.pixels, "landmarks": draw.landmarks, "boxes": draw.boxes, "identity": draw.identity}
        save_tensors(path, {name: tensor.contiguous() for name, tensor in fields.items()}, {})
    tensors, _ = load_tensors(path)
    return Faces(tensors["pixels"], tensors["landmarks"], tensors["boxes"], tensors["identity"])


def _joined(parts: list[Faces]) -> Faces:
    return Faces(
        *(torch.cat([getattr(p, name) for p in parts]) for name in ("pixels", "landmarks", "boxes", "identity"))
    )


def people_pool(folder: Path, seed: int) -> Faces:
    """PEOPLE people with PICTURES pictures each, person by person; shards that are there are not drawn again."""
    parts = []
    for index in tqdm(range(PEOPLE // _PEOPLE_A_SHARD), desc="people"):
        path, generator = folder / f"people_{index:03d}.safetensors", torch.Generator().manual_seed(seed * 1009 + index)
        drawn = None
        if not path.exists():
            people = draw_identities(_PEOPLE_A_SHARD, generator).repeat_interleave(PICTURES, 0)
            drawn = draw_faces(people, styles_of_people(_PEOPLE_A_SHARD, generator), generator, "portrait")
        parts.append(_cached(path, drawn))
    return _joined(parts)


def wide_pool(folder: Path, seed: int) -> Faces:
    """WIDE pictures with off-centre faces of all sizes, then EMPTY scenes whose boxes are zero."""
    path = folder / "wide.safetensors"
    if path.exists():
        return _cached(path, None)
    generator = torch.Generator().manual_seed(seed)
    people = draw_identities(WIDE, generator)
    wide = draw_faces(people, torch.randint(len(STYLES), (WIDE,), generator=generator), generator, "wide")
    style, scene = (torch.randint(len(words), (EMPTY,), generator=generator) for words in (STYLES, SCENES))
    empty = torch.cat([faceless(c, s, generator) for c, s in zip(scene.split(100), style.split(100), strict=True)])
    nobody = Faces(
        to_bytes(empty), torch.zeros(EMPTY, 5, 2), torch.zeros(EMPTY, 4), torch.zeros(EMPTY, people.shape[1])
    )
    return _cached(path, _joined([wide, nobody]))
