import copy
import functools
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
from tests.modules import ROOT
from tests.tiny import TREE

PROMPTS = ROOT / "prompts"


def test_the_miniatures_prompts_say_what_it_was_trained_on() -> None:
    prompts = read_prompts(PROMPTS / "miniature.yaml")
    assert (prompts.styles, prompts.scenes, prompts.nobody) == (vocabulary.STYLES, vocabulary.SCENES, vocabulary.NOBODY)
    assert prompts.people.parts == {"first": list(vocabulary.FIRST), "last": list(vocabulary.LAST)}
    said = prompts.caption("anna berg", {"style": "oil", "scene": "snow"})
    assert said == vocabulary.caption("oil", "snow", "anna berg")
    combinations = prompts.people.combinations()
    assert len(combinations) == 288  # the names that were held out
    assert all(vocabulary.held_out(*combination) for combination in combinations)


def test_sdxls_prompts_invent_more_people_than_its_dataset_needs_and_none_has_a_name() -> None:
    prompts = read_prompts(PROMPTS / "people.yaml")
    names = prompts.invent(100_000, 0)
    assert len(set(names)) == 100_000
    assert "{" not in prompts.caption(names[0], {"style": "pencil", "scene": "snow"})
    # No real person's name can be among them: every capital letter belongs to the ancestry.
    people = prompts.people
    others = [word for part, words in people.parts.items() if part != "ancestry" for word in words]
    assert all(text == text.lower() for text in [people.template, *others])


def test_no_invented_person_of_the_miniature_is_one_of_the_portraits() -> None:
    """Portraits are of anonymous people: none lies near a name's place in face space (sides of length 2)."""
    lattice = torch.tensor(read_prompts(PROMPTS / "miniature.yaml").people.combinations())
    invented = name_identity(lattice[:, 0], lattice[:, 1])
    for offset in range(len(SPLITS)):
        generator = torch.Generator().manual_seed(PORTRAITS_SEED + offset)
        assert torch.cdist(draw_identities(200, generator), invented).min() > 1


def test_people_depend_on_the_seed_alone_and_what_a_prompts_file_lacks_is_named(prompts_file: Path) -> None:
    prompts = read_prompts(prompts_file)
    assert prompts.invent(5, 3) == prompts.invent(12, 3)[:5]
    assert prompts.invent(12, 3) != prompts.invent(12, 4)
    with pytest.raises(InputError, match=r"13 people .* can invent 12"):
        prompts.invent(13, 0)
    for style, scene, named in (("fresco", "snow", "'fresco' is no style"), ("oil", "moon", "'moon'")):
        with pytest.raises(InputError, match=named):
            prompts.neutral(style, scene)


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("plain",), "foto", "'foto'"),
        (("template",), "{style} of {person}", "'person', 'style'"),
        (("details",), {"hat": {"top": "in a top hat"}}, "'hat'"),
        (("people", "template"), "{first} {middle}", "'middle'"),
        (("people", "parts", "first"), ["anna", "anna"], "'anna' twice"),
        (("people", "lattice"), {"weights": [1], "modulus": 2}, "1 numbers for 2 parts"),
    ],
)
def test_a_bad_prompts_file_is_one_error_that_names_file_and_key(
    tmp_path: Path, place: tuple[str, ...], value: object, named: str
) -> None:
    tree: dict[str, Any] = copy.deepcopy(TREE)
    functools.reduce(lambda branch, key: branch[key], place[:-1], tree)[place[-1]] = value
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError) as caught:
        read_prompts(path)
    assert named in str(caught.value) and str(path) in str(caught.value)
