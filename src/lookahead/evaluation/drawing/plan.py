"""Which pictures a cell is: people x prompts x repeats, the same for every cell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np

from lookahead.config import Evaluate
from lookahead.dataset.prompts import Prompts


@dataclass(frozen=True)
class Shot:
    """One picture of one person; `noise_seed` is that of its first noise."""

    person: int
    style: str
    scene: str
    repeat: int
    noise_seed: int

    def row(self) -> dict[str, int | str]:
        """The shot as columns of the long table."""
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """All shots of a cell, and the prompt of each style (row) in each scene (column); photos are the first row."""

    styles: list[str]
    scenes: list[str]
    prompts: list[list[str]]
    shots: list[Shot]

    def style_number(self, shot: Shot) -> int:
        """The row of the shot's prompt."""
        return self.styles.index(shot.style)

    def scene_number(self, shot: Shot) -> int:
        """The column of the shot's prompt."""
        return self.scenes.index(shot.scene)

    def prompt_number(self, shot: Shot) -> int:
        """The number of the shot's prompt, row by row."""
        return self.style_number(shot) * len(self.scenes) + self.scene_number(shot)

    def of_people(self, count: int | None) -> Plan:
        """The shots of the first `count` people; None is all."""
        return self if count is None else replace(self, shots=[shot for shot in self.shots if shot.person < count])


def choose_prompts(person: int, styles: list[str], scenes: list[str], photos: int) -> list[tuple[str, str]]:
    """The (style, scene) pairs of one person: `photos` photos, then one picture in every other style.

    Scenes are dealt in turn, so that over people every style meets every scene equally often.

    Args:
        person: the person's number.
        styles: names of the styles; the first one is the photo.
        scenes: names of the scenes.
        photos: how many of the prompts ask for a photo.
    """
    plain = [(styles[0], scenes[(person * photos + i) % len(scenes)]) for i in range(photos)]
    stylised = [(style, scenes[(person + i) % len(scenes)]) for i, style in enumerate(styles[1:])]
    return plain + stylised


def make_plan(prompts: Prompts, settings: Evaluate) -> Plan:
    """The pictures that the protocol asks for; prompts name no one: identity has to come from the reference."""
    styles, scenes = [prompts.plain, *prompts.stylised], list(prompts.scenes)
    grid = [[prompts.neutral(style, scene) for scene in scenes] for style in styles]
    shots = make_shots(settings.people, styles, scenes, settings.photo_prompts, settings.seeds, settings.seed)
    return Plan(styles, scenes, grid, list(shots))


def make_shots(
    people: int, styles: list[str], scenes: list[str], photos: int, repeats: int, seed: int
) -> Iterator[Shot]:
    """Every picture of one cell in a fixed order; its noise depends on person, prompt, repeat and `seed` alone."""
    for person in range(people):
        for number, (style, scene) in enumerate(choose_prompts(person, styles, scenes, photos)):
            for repeat in range(repeats):
                noise = np.random.SeedSequence([seed, person, number, repeat]).generate_state(1)
                yield Shot(person, style, scene, repeat, int(noise[0]))
