"""What captions can say: styles, scenes, and names, which decide the identity vector of a person."""

from __future__ import annotations

import torch
from torch import Tensor

STYLES: dict[str, str] = {
    "photo": "a photo",
    "pencil": "a pencil drawing",
    "watercolour": "a watercolour painting",
    "comic": "a comic drawing",
    "oil": "an oil painting",
    "graffiti": "a graffiti",
}

SCENES: dict[str, str] = {
    "studio": "in a studio",
    "beach": "on the beach",
    "forest": "in the forest",
    "snow": "in the snow",
    "city": "in the city at night",
    "sunset": "at sunset",
}

NOBODY = "a person"

_FIRST = """
anna bela cora dina ella fara gina hana iris jana kira lena mara nora olga pia rosa sara tina uma vera wila yara zoe
adam bert carl dirk emil finn gert hugo ivan jack kurt leon max nils otto paul quin ralf sven theo udo viko will zeno
"""
_LAST = """
abel berg cole dahl eder falk grau holm imre jung koch lang moor nagy oren park quist reed stone tamm ulla voss wang
york ames bond cruz dorn enge ford gall hahn ibsen jensen kern lund marsh noll otis pohl rask silva thorn unger vance
wolf young zell
"""
FIRST = tuple(_FIRST.split())
LAST = tuple(_LAST.split())

# A trait is a number in [-1, 1]. The order of the traits is part of the recognisers' training targets.
_TRAITS = """
skin_tone skin_warmth hair_colour hair_tint hair_length hair_volume hair_curl fringe parting face_width jaw chin
eye_size eye_spacing eye_colour eye_tilt brow_weight brow_tilt nose_length nose_width mouth_width lips ears beard
moustache glasses
"""
TRAITS = tuple(_TRAITS.split())
IDENTITY_SIZE = len(TRAITS)
_NAME_SEED = 2404_03620  # fixed for good: it decides the identity of every name
_CANDIDATES = 4096


def held_out(first: int, last: int) -> bool:
    """Whether the name FIRST[first] LAST[last] is kept from training: one combination in eight, a fixed lattice."""
    return (3 * first + 5 * last) % 8 == 0


def names(trained: bool) -> Tensor:
    """All (first, last) combinations that training sees, or all that it does not see: (K, 2) int64."""
    return torch.tensor([(i, j) for i in range(len(FIRST)) for j in range(len(LAST)) if held_out(i, j) != trained])


def subjects(first: Tensor, last: Tensor) -> list[str]:
    """What captions call people: names by indices (B,) into FIRST and LAST, or "a person" where they are negative."""
    pairs = zip(first.tolist(), last.tolist(), strict=True)
    return [NOBODY if i < 0 else f"{FIRST[i]} {LAST[j]}" for i, j in pairs]


def caption(style: str, scene: str, subject: str) -> str:
    """The caption of a picture, e.g. "a pencil drawing of anna berg in the snow"."""
    return f"{STYLES[style]} of {subject} {SCENES[scene]}"


def captions(style: Tensor, scene: Tensor, subjects: list[str]) -> list[str]:
    """The captions of pictures by indices (B,) into STYLES and SCENES; an empty subject is left out."""
    texts = [
        caption(tuple(STYLES)[s], tuple(SCENES)[c], subject)
        for s, c, subject in zip(style.tolist(), scene.tolist(), subjects, strict=True)
    ]
    return [text.replace(" of  ", " ") for text in texts]


def captions_without_names() -> list[str]:
    """The captions of "a person" in every style (slowest) and scene."""
    return [caption(style, scene, NOBODY) for style in STYLES for scene in SCENES]


def words() -> list[str]:
    """Every distinct word of every caption, in a fixed order."""
    phrases = [*STYLES.values(), "of", NOBODY, *SCENES.values(), *FIRST, *LAST]
    return list(dict.fromkeys(word for phrase in phrases for word in phrase.split()))


def draw_identities(count: int, generator: torch.Generator) -> Tensor:
    """Draw anonymous people, uniform over all traits: (count, IDENTITY_SIZE) in [-1, 1]."""
    return torch.rand(count, IDENTITY_SIZE, generator=generator) * 2 - 1


def name_identity(first: Tensor, last: Tensor) -> Tensor:
    """The identities (B, IDENTITY_SIZE) of names by indices (B,) into FIRST and LAST; each part decides every second
    trait."""
    identity = torch.empty(len(first), IDENTITY_SIZE)
    identity[:, 0::2] = _half_identities(0, len(FIRST))[first]
    identity[:, 1::2] = _half_identities(1, len(LAST))[last]
    return identity


def _half_identities(which: int, count: int) -> Tensor:
    """Half-identities far from each other: the next one is, of many candidates, the farthest from those chosen."""
    generator = torch.Generator().manual_seed(_NAME_SEED + which)
    candidates = torch.rand(_CANDIDATES, IDENTITY_SIZE // 2, generator=generator) * 2 - 1
    chosen = [0]
    nearest = torch.full((_CANDIDATES,), float("inf"))
    for _ in range(count - 1):
        nearest = torch.minimum(nearest, (candidates - candidates[chosen[-1]]).norm(dim=1))
        chosen.append(int(nearest.argmax()))
    return candidates[chosen]
