"""The protocol is data, and its hash says which results may be compared."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lookahead.config import Checkpoints, Evaluate, Scorer, read_params, read_protocol, with_overrides
from lookahead.dataset.prompts import read_prompts
from lookahead.errors import InputError
from lookahead.evaluation.cells import HASH, Description, describe, differences
from lookahead.evaluation.drawing.pictures import make_plan
from lookahead.portraits import read_people
from tests.modules import ROOT


def told(settings: Evaluate, checkpoints: Checkpoints) -> Description:
    people = read_people(Path(settings.portraits), settings.people)
    return describe(settings, checkpoints, people, make_plan(read_prompts(settings.prompts), settings))


@pytest.mark.parametrize("world", ["miniature", "sdxl"])
def test_the_worlds_name_their_protocols(world: str) -> None:
    settings = read_params().worlds[world].evaluation()
    assert settings.split == "test" and settings.portraits == f"models/{world}/portraits/test"
    assert (ROOT / settings.prompts).is_file()


@pytest.mark.parametrize("text", ["people: 3\n", "a: [\n"])
def test_a_file_that_is_no_protocol_is_one_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"the protocol .*p\.yaml is not valid"):
        read_protocol(tmp_path / "p.yaml")


@pytest.mark.parametrize("change", [{"batch_size": 3}, {"grid_people": 3}])
def test_what_is_no_protocol_leaves_the_hash(change: dict[str, object], tiny: Checkpoints, quick: Evaluate) -> None:
    assert told(with_overrides(quick, change), tiny) == told(quick, tiny)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"num_inference_steps": 3}, ["settings.num_inference_steps"]),
        ({"seed": 9}, ["settings.seed"]),
        ({"people": 3}, ["other_photos", "people", "references", "settings.people"]),
        ({"guidance_scale": 1.5}, ["settings.guidance_scale"]),
    ],
)
def test_another_protocol_has_another_hash_and_says_where(
    change: dict[str, object], name: list[str], tiny: Checkpoints, quick: Evaluate
) -> None:
    one, other = told(quick, tiny), told(with_overrides(quick, change), tiny)
    assert one[HASH] != other[HASH] and differences(one, other) == name


def test_the_hash_knows_photos_and_judges_by_their_contents(tiny: Checkpoints, quick: Evaluate, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(quick.portraits, tmp_path / "elsewhere"))
    splits = quick.splits.model_dump() | {"test": str(moved)}
    assert told(with_overrides(quick, {"splits": splits}), tiny) == told(quick, tiny)
    shutil.copy(moved / "001" / "1.jpg", moved / "000" / "0.jpg")
    assert differences(told(with_overrides(quick, {"splits": splits}), tiny), told(quick, tiny)) == ["references"]
    scorer = tiny.model_copy(update={"scorer": Scorer(model="ViT-L-14", pretrained="openai")})
    assert differences(told(quick, scorer), told(quick, tiny)) == ["scorers.scorer"]
    swapped = tiny.faces.model_copy(update={"report": tiny.faces.select})
    faces = tiny.model_copy(update={"faces": swapped})
    assert differences(told(quick, faces), told(quick, tiny)) == ["scorers.recognisers.report"]
