"""The protocol is data, balanced and with noise of its own; its hash says which results may be compared."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from lookahead.config import Checkpoints, Evaluate, Scorer, with_overrides
from lookahead.dataset.prompts import read_prompts
from lookahead.evaluation.cells import HASH, Description, describe, differences
from lookahead.evaluation.pictures import Shot, choose_prompts, make_plan, make_shots
from lookahead.portraits import read_people

STYLES = ["photo", "pencil", "oil"]
SCENES = ["beach", "snow", "city", "forest"]
WORDS = {"style": STYLES, "scene": SCENES, "clothes": ["red", "blue"]}


def _shots(people: int, repeats: int = 1, seed: int = 0) -> list[Shot]:
    return list(make_shots(people, WORDS, photos=2, repeats=repeats, seed=seed))


def test_everybody_is_drawn_as_photo_and_in_every_style_and_every_style_meets_every_scene_equally_often() -> None:
    for person in range(9):
        chosen = choose_prompts(person, WORDS, photos=2)
        assert Counter(style for style, *_ in chosen) == {"photo": 2, "pencil": 1, "oil": 1}
        assert len({asked[:2] for asked in chosen}) == len(chosen)
        assert Counter(clothes for *_, clothes in chosen) == {"red": 2, "blue": 2}
    shots = _shots(people=80)
    met = Counter(shot.asked[:2] for shot in shots)
    assert {met[style, scene] for style in STYLES[1:] for scene in SCENES} == {20}
    assert {met["photo", scene] for scene in SCENES} == {40}
    assert len({shot.asked for shot in shots}) == 24  # clothes depend on neither


def test_noise_depends_on_nothing_but_person_prompt_repeat_and_seed() -> None:
    shots = _shots(people=20, repeats=3)
    assert len({shot.noise_seed for shot in shots}) == len(shots)
    assert _shots(people=3) == _shots(people=6)[: 3 * 4]
    assert not {s.noise_seed for s in _shots(3, seed=0)} & {s.noise_seed for s in _shots(3, seed=1)}


def described(settings: Evaluate, checkpoints: Checkpoints) -> Description:
    people = read_people(Path(settings.portraits), settings.people)
    return describe(settings, checkpoints, people, make_plan(read_prompts(settings.prompts), settings))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"batch_size": 3, "grid_people": 3}, []),  # which change no picture
        ({"num_inference_steps": 3}, ["settings.num_inference_steps"]),
        ({"seed": 9}, ["settings.seed"]),
        ({"people": 3}, ["other_photos", "people", "references", "settings.people"]),
        ({"guidance_scale": 1.5}, ["settings.guidance_scale"]),
    ],
)
def test_another_protocol_has_another_hash_and_says_where(
    change: dict[str, object], name: list[str], tiny: Checkpoints, quick: Evaluate
) -> None:
    one, other = described(quick, tiny), described(with_overrides(quick, change), tiny)
    assert (one[HASH] != other[HASH]) == bool(name) and differences(one, other) == name


def test_the_hash_knows_photos_and_judges_by_their_contents(tiny: Checkpoints, quick: Evaluate, tmp_path: Path) -> None:
    own = described(quick, tiny)
    folder = Path(shutil.copytree(quick.portraits, tmp_path / "elsewhere"))
    moved = with_overrides(quick, {"splits.test": str(folder)})
    assert described(moved, tiny) == own
    shutil.copy(folder / "001" / "1.jpg", folder / "000" / "0.jpg")
    assert differences(described(moved, tiny), own) == ["references"]
    scorer = tiny.model_copy(update={"scorer": Scorer(model="ViT-L-14", pretrained="openai")})
    assert differences(described(quick, scorer), own) == ["scorers.scorer"]
    faces = tiny.model_copy(update={"faces": tiny.faces.model_copy(update={"report": tiny.faces.select})})
    assert differences(described(quick, faces), own) == ["scorers.recognisers.report"]
