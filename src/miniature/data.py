"""Rendered data: captioned pictures, annotated faces, and the portraits of people that no part is trained on.

Everything is drawn on the CPU, shard by shard, and kept; a shard depends on its seed and index alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import load_tensors, save_tensors
from lookahead.world import device
from miniature.renderer import Framing, faceless, render
from miniature.vocabulary import SCENES, STYLES, captions, draw_identities, name_identity, names, subjects

SHARD = 1000  # pictures of the pool
NAMED = 0.65  # share of pictures of people who have a name; the others cover all other identities
PLAIN = 0.4  # share of photos; the other styles share the rest

PEOPLE = 2400  # whom the recognisers learn
PEOPLE_PER_SHARD = 200
PHOTOS = 3
PICTURES = 6  # a person: the first PHOTOS are photos, the others drawings and paintings
WIDE = 21_000  # pictures for the detector, every one of another person; of 7,000 it learnt the landmarks by heart
EMPTY = 1500  # pictures without a face

SPLITS = ("search", "validation", "test")
PORTRAITS = 3  # photos of each person
PORTRAITS_SEED = 77_000  # used by nothing else

Columns = dict[str, Tensor]
Rows = TypeVar("Rows")


@dataclass(frozen=True)
class Pool:
    """Rendered portraits with what their captions say, in the CPU's memory."""

    pixels: Tensor  # (N, 3, 64, 64) uint8
    identity: Tensor  # (N, IDENTITY_SIZE)
    style: Tensor  # (N,) int64
    scene: Tensor  # (N,) int64
    first: Tensor  # (N,) int64, -1 for anonymous people
    last: Tensor  # (N,) int64, -1 for anonymous people

    def __len__(self) -> int:
        return len(self.pixels)

    def captions(self) -> list[str]:
        """The caption of every picture."""
        return captions(self.style, self.scene, subjects(self.first, self.last))


@dataclass(frozen=True)
class Faces:
    """Annotated pictures in the CPU's memory; coordinates are pixels."""

    pixels: Tensor  # (N, 3, 64, 64) uint8
    landmarks: Tensor  # (N, 5, 2)
    boxes: Tensor  # (N, 4); zeros where there is no face
    identity: Tensor  # (N, IDENTITY_SIZE)


def to_bytes(pixels: Tensor) -> Tensor:
    """Pictures in [-1, 1] as uint8."""
    return ((pixels + 1) * 127.5).round().clamp(0, 255).byte()


def to_pixels(pictures: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) uint8 as float32 in [-1, 1], on the device."""
    return pictures.to(device()).float() / 127.5 - 1


def draw_styles(count: int, generator: torch.Generator) -> Tensor:
    """Styles of training pictures: (count,) int64, photos with probability PLAIN."""
    weights = torch.tensor([PLAIN] + [(1 - PLAIN) / (len(STYLES) - 1)] * (len(STYLES) - 1))
    return torch.multinomial(weights, count, replacement=True, generator=generator)


def _kept(path: Path, draw: Callable[[], Columns]) -> Columns:
    if not path.exists():
        save_tensors(path, {name: tensor.contiguous() for name, tensor in draw().items()}, {})
    return load_tensors(path)[0]


def _joined(kind: type[Rows], parts: list[Columns]) -> Rows:
    return kind(*(torch.cat([part[field.name] for part in parts]) for field in fields(kind)))  # type: ignore[arg-type]


def open_pool(folder: Path, shards: int, seed: int) -> Pool:
    """The first shards of the pool of captioned portraits; those that are missing are drawn."""

    def draw(index: int) -> Columns:
        generator = torch.Generator().manual_seed(seed * 100_003 + index)
        trained = names(trained=True)
        name = trained[torch.randint(len(trained), (SHARD,), generator=generator)]
        name[torch.rand(SHARD, generator=generator) >= NAMED] = -1
        anonymous = name[:, 0] < 0
        identity = name_identity(name[:, 0].clamp(min=0), name[:, 1].clamp(min=0))
        identity[anonymous] = draw_identities(int(anonymous.sum()), generator)
        style, scene = draw_styles(SHARD, generator), torch.randint(len(SCENES), (SHARD,), generator=generator)
        drawn = render(identity, style, scene, generator, "portrait")
        known = {"identity": identity, "style": style, "scene": scene, "first": name[:, 0], "last": name[:, 1]}
        return {"pixels": to_bytes(drawn.pixels)} | known

    indices = tqdm(range(shards), desc="pool")
    return _joined(Pool, [_kept(folder / f"{i:03d}.safetensors", partial(draw, i)) for i in indices])


def draw_faces(people: Tensor, style: Tensor, generator: torch.Generator, framing: Framing) -> Faces:
    """Draw one picture for each row of `people` in random scenes."""
    scene = torch.randint(len(SCENES), (len(people),), generator=generator)
    drawn = render(people, style, scene, generator, framing)
    return Faces(to_bytes(drawn.pixels), drawn.landmarks, drawn.boxes, people)


def open_people(folder: Path, seed: int) -> Faces:
    """PEOPLE people with PICTURES pictures each, person by person; shards that are missing are drawn."""

    def draw(index: int) -> Columns:
        generator = torch.Generator().manual_seed(seed * 1009 + index)
        people = draw_identities(PEOPLE_PER_SHARD, generator).repeat_interleave(PICTURES, 0)
        styles = torch.zeros(PEOPLE_PER_SHARD, PICTURES, dtype=torch.int64)
        drawings = (PEOPLE_PER_SHARD, PICTURES - PHOTOS)
        styles[:, PHOTOS:] = torch.randint(1, len(STYLES), drawings, generator=generator)
        return vars(draw_faces(people, styles.flatten(), generator, "portrait"))

    indices = tqdm(range(PEOPLE // PEOPLE_PER_SHARD), desc="people")
    return _joined(Faces, [_kept(folder / f"people_{i:03d}.safetensors", partial(draw, i)) for i in indices])


def open_wide(folder: Path, seed: int) -> Faces:
    """WIDE pictures with off-centre faces of all sizes, then EMPTY scenes; drawn where they are missing."""

    def draw() -> Columns:
        generator = torch.Generator().manual_seed(seed)
        people = draw_identities(WIDE, generator)
        style = torch.randint(len(STYLES), (WIDE,), generator=generator)
        wide = draw_faces(people, style, generator, "wide")
        style, scene = (torch.randint(len(each), (EMPTY,), generator=generator) for each in (STYLES, SCENES))
        scenes = zip(scene.split(100), style.split(100), strict=True)
        pixels = to_bytes(torch.cat([faceless(*rows, generator) for rows in scenes]))
        empty = Faces(pixels, torch.zeros(EMPTY, 5, 2), torch.zeros(EMPTY, 4), torch.zeros(EMPTY, people.shape[1]))
        return vars(_joined(Faces, [vars(wide), vars(empty)]))

    return _joined(Faces, [_kept(folder / "wide.safetensors", draw)])


def draw_split(split: str, people: int) -> Tensor:
    """The photos of a split, person by person: (people * PORTRAITS, 3, 64, 64) uint8.

    The people are anonymous, so that no name in a caption gives them away.
    """
    generator = torch.Generator().manual_seed(PORTRAITS_SEED + SPLITS.index(split))
    identity = draw_identities(people, generator).repeat_interleave(PORTRAITS, 0)
    style = torch.zeros(len(identity), dtype=torch.int64)
    scene = torch.randint(len(SCENES), (len(identity),), generator=generator)
    return to_bytes(render(identity, style, scene, generator, "portrait").pixels)


def build_portraits(people: dict[str, int], out: Path) -> None:
    """Write `<out>/<split>/<person>/<0..2>.jpg` for this many people of each split."""
    for split in SPLITS:
        for row, picture in enumerate(draw_split(split, people[split]).permute(0, 2, 3, 1).numpy()):
            path = out / split / f"{row // PORTRAITS:03d}" / f"{row % PORTRAITS}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(path, quality=95, subsampling=0)
