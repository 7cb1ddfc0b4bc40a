import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lookahead.dataset.prompts import read_prompts
from lookahead.errors import InputError
from miniature import vocabulary
from miniature.data import PORTRAITS_SEED, SPLITS
from miniature.vocabulary import draw_identities, name_identity
from tests.tiny import TREE

REPOSITORY = Path(__file__).parents[2]


def test_the_miniatures_prompts_say_what_it_was_trained_on() -> None:
    prompts = read_prompts(REPOSITORY / "prompts" / "miniature.yaml")
    assert (prompts.styles, prompts.scenes, prompts.nobody) == (vocabulary.STYLES, vocabulary.SCENES, vocabulary.NOBODY)
    assert prompts.people.parts == {"first": list(vocabulary.FIRST), "last": list(vocabulary.LAST)}
    assert prompts.caption("oil", "snow", "anna berg") == vocabulary.caption("oil", "snow", "anna berg")


def test_the_miniatures_people_are_the_names_that_were_held_out() -> None:
    people = read_prompts(REPOSITORY / "prompts" / "miniature.yaml").people
    combinations = people.combinations()
    assert len(combinations) == 288
    assert all(vocabulary.held_out(*combination) for combination in combinations)


def test_sdxls_prompts_invent_more_people_than_its_dataset_needs() -> None:
    prompts = read_prompts(REPOSITORY / "prompts" / "sdxl.yaml")
    names = prompts.invent(100_000, 0)
    assert len(set(names)) == 100_000
    assert "{" not in prompts.caption("pencil", "snow", names[0])


def test_sdxls_people_are_descriptions_without_a_name() -> None:
    """Every capital letter in them belongs to the ancestry: there is no place for a real person's name."""
    people = read_prompts(REPOSITORY / "prompts" / "sdxl.yaml").people
    others = [word for part, words_ in people.parts.items() if part != "ancestry" for word in words_]
    assert all(text == text.lower() for text in [people.template, *others])


def test_no_invented_person_of_the_miniature_is_one_of_the_portraits() -> None:
    """Portraits are of anonymous people: none lies near a name's place in face space (sides of length 2)."""
    lattice = torch.tensor(read_prompts(REPOSITORY / "prompts" / "miniature.yaml").people.combinations())
    invented = name_identity(lattice[:, 0], lattice[:, 1])
    for offset in range(len(SPLITS)):
        generator = torch.Generator().manual_seed(PORTRAITS_SEED + offset)
        assert torch.cdist(draw_identities(200, generator), invented).min() > 1


def test_people_depend_on_the_seed_alone_and_more_of_them_begin_with_the_same(prompts_file: Path) -> None:
    prompts = read_prompts(prompts_file)
    assert prompts.invent(5, 3) == prompts.invent(12, 3)[:5]
    assert prompts.invent(12, 3) != prompts.invent(12, 4)


def test_too_many_people_are_refused(prompts_file: Path) -> None:
    with pytest.raises(InputError, match=r"13 people .* can invent 12"):
        read_prompts(prompts_file).invent(13, 0)


@pytest.mark.parametrize(
    ("style", "scene", "named"), [("fresco", "snow", "'fresco' is no style"), ("oil", "moon", "'moon'")]
)
def test_an_unknown_style_or_scene_is_named(prompts_file: Path, style: str, scene: str, named: str) -> None:
    with pytest.raises(InputError, match=named):
        read_prompts(prompts_file).neutral(style, scene)


def _changed(place: tuple[str, ...], value: object) -> dict[str, Any]:
    tree: dict[str, Any] = copy.deepcopy(TREE)
    branch = tree
    for key in place[:-1]:
        branch = branch[key]
    branch[place[-1]] = value
    return tree


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("plain",), "foto", "'foto'"),
        (("template",), "{style} of {person}", "'person', 'style'"),
        (("people", "template"), "{first} {middle}", "'middle'"),
        (("people", "parts", "first"), ["anna", "anna"], "'anna' twice"),
        (("people", "lattice"), {"weights": [1], "modulus": 2}, "1 numbers for 2 parts"),
    ],
)
def test_a_bad_prompts_file_is_one_error_that_names_file_and_key(
    tmp_path: Path, place: tuple[str, ...], value: object, named: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(_changed(place, value)))
    with pytest.raises(InputError) as caught:
        read_prompts(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)
