"""The protocol is balanced, and noise depends on nothing but person, prompt, repeat and seed."""

from __future__ import annotations

from collections import Counter

from lookahead.config import Evaluate
from lookahead.dataset.prompts import read_prompts
from lookahead.evaluation.drawing.pictures import Shot, choose_prompts, make_plan, make_shots

STYLES = ["photo", "pencil", "oil"]
SCENES = ["beach", "snow", "city", "forest"]


def _shots(people: int, repeats: int = 1, seed: int = 0) -> list[Shot]:
    return list(make_shots(people, STYLES, SCENES, photos=2, repeats=repeats, seed=seed))


def test_everybody_is_drawn_as_photo_and_in_every_style() -> None:
    for person in range(9):
        chosen = choose_prompts(person, STYLES, SCENES, photos=2)
        assert Counter(style for style, _ in chosen) == {"photo": 2, "pencil": 1, "oil": 1}
        assert len(set(chosen)) == len(chosen)


def test_every_style_meets_every_scene_equally_often() -> None:
    met = Counter((shot.style, shot.scene) for shot in _shots(people=8))
    assert {met[style, scene] for style in STYLES[1:] for scene in SCENES} == {2}
    assert {met["photo", scene] for scene in SCENES} == {4}


def test_noise_differs_between_all_shots_and_seeds_and_not_with_how_many_people_there_are() -> None:
    shots = _shots(people=20, repeats=3)
    assert len({shot.noise_seed for shot in shots}) == len(shots)
    assert _shots(people=3) == _shots(people=6)[: 3 * 4]
    assert not {s.noise_seed for s in _shots(3, seed=0)} & {s.noise_seed for s in _shots(3, seed=1)}


def test_plan_follows_prompts_and_settings(quick: Evaluate) -> None:
    prompts = read_prompts(quick.prompts)
    plan = make_plan(prompts, quick)
    assert plan.styles[0] == prompts.plain
    assert len(plan.shots) == quick.people * quick.seeds * (quick.photo_prompts + len(plan.styles) - 1)
    for shot in plan.shots:
        row, column = plan.numbers(shot)
        assert plan.prompts[row][column] == prompts.neutral(shot.style, shot.scene)
