"""What is known of checkpoints that a world may name: their licence, and how much is downloaded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Entry(NamedTuple):
    """`terms` in plain words (docs/sdxl.md); `gigabytes` of the files that the loader needs, at half precision."""

    licence: str
    terms: str
    gigabytes: float


_RAIL = Entry("CreativeML Open RAIL++-M", "commercial use allowed; a list of forbidden uses goes with every copy", 6.8)
_MIT = Entry("MIT", "commercial use allowed", 0.3)
_PACK = Entry("insightface models", "NON-COMMERCIAL research only", 0.3)
KNOWN = {
    "stabilityai/stable-diffusion-xl-base-1.0": _RAIL,
    "madebyollin/sdxl-vae-fp16-fix": _MIT,
    "madebyollin/taesdxl": _MIT._replace(gigabytes=0.01),
    "latent-consistency/lcm-lora-sdxl": _RAIL._replace(gigabytes=0.4),
    "stabilityai/sdxl-turbo": Entry(
        "sai-nc-community", "NON-COMMERCIAL, unless Stability AI agrees otherwise; read it", 6.9
    ),
    "h94/IP-Adapter": Entry("Apache-2.0", "commercial use allowed", 3.4),
    "timm/vit_large_patch14_clip_224.openai": _MIT._replace(gigabytes=1.7),
    "buffalo_l": _PACK,
    "antelopev2": _PACK._replace(gigabytes=0.4),
    "buffalo_s": _PACK._replace(gigabytes=0.2),
}


def repository_of(source: str) -> str:
    """A source of the parameters without its commit and variant."""
    return source.split("@")[0].split(":")[0]


def licence(source: str) -> str:
    """A checkpoint's licence and what it asks for; of one that is not known, where to look."""
    entry = KNOWN.get(repository_of(source))
    return f"{entry.licence}: {entry.terms}" if entry else "licence not known here: read its page"


def gigabytes(sources: Iterable[str]) -> float:
    """What these checkpoints take on the disk; those that are not known, such as folders, count nothing."""
    return sum(KNOWN[name].gigabytes for name in {repository_of(source) for source in sources} if name in KNOWN)
