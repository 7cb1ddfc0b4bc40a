"""A pool of rendered portraits that the generative parts train on, drawn once, shard by shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import load_tensors, save_tensors
from miniature.renderer import draw_identities, name_identity, render
from miniature.words import FIRST, LAST, NOBODY, SCENES, STYLES, caption, held_out

SHARD = 1000  # pictures
NAMED = 0.65  # share of pictures of people who have a name; the others cover the rest of face space
PLAIN = 0.4  # share of photos; the other styles share the rest


@dataclass(frozen=True)
class Pool:
    """Rendered portraits in memory."""

    pixels: Tensor  # (N, 3, 64, 64) uint8
    identity: Tensor  # (N, IDENTITY_SIZE)
    style: Tensor  # (N,) int64
    scene: Tensor  # (N,) int64
    first: Tensor  # (N,) int64, -1 for anonymous people
    last: Tensor  # (N,) int64, -1 for anonymous people

    def __len__(self) -> int:
        return len(self.pixels)

    def subject(self, row: int) -> str:
        """The person's name, or "a person"."""
        return NOBODY if self.first[row] < 0 else f"{FIRST[self.first[row]]} {LAST[self.last[row]]}"

    def caption(self, row: int) -> str:
        """The caption of one picture."""
        return caption(tuple(STYLES)[self.style[row]], tuple(SCENES)[self.scene[row]], self.subject(row))


def trained_names() -> Tensor:
    """Every (first, last) combination that training may see: (K, 2) int64."""
    return torch.tensor([(i, j) for i in range(len(FIRST)) for j in range(len(LAST)) if not held_out(i, j)])


def draw_styles(count: int, generator: torch.Generator) -> Tensor:
    """Styles of training pictures: (count,) int64, photos with probability PLAIN."""
    weights = torch.tensor([PLAIN] + [(1 - PLAIN) / (len(STYLES) - 1)] * (len(STYLES) - 1))
    return torch.multinomial(weights, count, replacement=True, generator=generator)


def build_pool(folder: Path, shards: int, seed: int) -> None:
    """Render the shards that are not there yet; a shard depends on the seed and its index alone."""
    names = trained_names()
    for index in tqdm(range(shards), desc="pool"):
        path = folder / f"{index:03d}.safetensors"
        if path.exists():
            continue
        generator = torch.Generator().manual_seed(seed * 100_003 + index)
        name = names[torch.randint(len(names), (SHARD,), generator=generator)]
        name[torch.rand(SHARD, generator=generator) >= NAMED] = -1
        anonymous = name[:, 0] < 0
        identity = name_identity(name[:, 0].clamp(min=0), name[:, 1].clamp(min=0))
        identity[anonymous] = draw_identities(int(anonymous.sum()), generator)
        style, scene = draw_styles(SHARD, generator), torch.randint(len(SCENES), (SHARD,), generator=generator)
        drawn = render(identity, style, scene, generator, "portrait")
        pixels = ((drawn.pixels + 1) * 127.5).round().clamp(0, 255).byte()
        columns = {
            "pixels": pixels,
            "identity": identity,
            "style": style,
            "scene": scene,
            "first": name[:, 0],
            "last": name[:, 1],
        }
        save_tensors(path, {k: v.contiguous() for k, v in columns.items()}, {})


def open_pool(folder: Path, limit: int | None = None) -> Pool:
    """Read the shards (at most `limit` of them) into memory."""
    parts = [load_tensors(path)[0] for path in sorted(folder.glob("*.safetensors"))[:limit]]
    return Pool(
        *(
            torch.cat([part[name] for part in parts])
            for name in ("pixels", "identity", "style", "scene", "first", "last")
        )
    )
