"""Which pictures are drawn of whom: a list that depends on the prompts and the settings alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from lookahead.config import Generate
from lookahead.dataset.prompts import Prompts


@dataclass(frozen=True)
class Picture:
    """One picture to draw; `prompt` names the person, `neutral_prompt` is the same without the name."""

    index: int
    identity: int
    name: str
    style: str
    scene: str
    prompt: str
    neutral_prompt: str
    seed: int


def picture_seed(seed: int, index: int) -> int:
    """The seed of a picture's noise, from the picture's index, so that it never depends on batch or process."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0])


def _shuffled(words: list[str], count: int, generator: torch.Generator) -> list[str]:
    """`count` words in turns of a random order, so that each comes equally often."""
    order = torch.randperm(len(words), generator=generator).tolist()
    return [words[order[i % len(words)]] for i in range(count)]


def _choices(prompts: Prompts, settings: Generate, identity: int) -> list[tuple[str, str]]:
    """The (style, scene) pairs of one person: photos first, then stylised pictures."""
    state = np.random.SeedSequence([settings.seed, identity, 1]).generate_state(1)
    generator = torch.Generator().manual_seed(int(state[0]))
    count = settings.photos + settings.stylised
    styles = [prompts.plain] * settings.photos + _shuffled(prompts.stylised, settings.stylised, generator)
    return list(zip(styles, _shuffled(list(prompts.scenes), count, generator), strict=True))


def _pictures(prompts: Prompts, settings: Generate) -> Iterator[Picture]:
    names = prompts.invent(settings.people, settings.seed)
    for identity, name in enumerate(names):
        for turn, (style, scene) in enumerate(_choices(prompts, settings, identity)):
            index = identity * (settings.photos + settings.stylised) + turn
            yield Picture(
                index=index,
                identity=identity,
                name=name,
                style=style,
                scene=scene,
                prompt=prompts.caption(style, scene, name),
                neutral_prompt=prompts.neutral(style, scene),
                seed=picture_seed(settings.seed, index),
            )


def plan_pictures(prompts: Prompts, settings: Generate) -> list[Picture]:
    """Every picture of the dataset: for each person `photos` plain ones and `stylised` others, scenes dealt in turns.

    Raises:
        InputError: the prompts cannot invent that many people.
    """
    return list(_pictures(prompts, settings))
