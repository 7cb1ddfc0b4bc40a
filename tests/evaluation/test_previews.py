"""The curves of one-step previews: against the method's own functions, and what they need."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from lookahead.config import Checkpoints, Evaluate, PreviewCurves, read_evaluate, read_params
from lookahead.dataset.prompts import read_prompts
from lookahead.errors import InputError
from lookahead.evaluation.faces import FaceReader
from lookahead.evaluation.panel import encode_conditions
from lookahead.evaluation.pictures import Conditions
from lookahead.evaluation.plan import make_plan
from lookahead.evaluation.previews import measure_previews
from lookahead.portraits import Person, read_people
from lookahead.world import open_pipeline


@pytest.fixture(scope="module")
def people(quick: Evaluate) -> list[Person]:
    return read_people(Path(quick.portraits), quick.people)


@pytest.fixture(scope="module")
def conditions(tiny: Checkpoints, quick: Evaluate, people: list[Person]) -> Conditions:
    plan = make_plan(read_prompts(quick.prompts), quick)
    return encode_conditions(tiny, open_pipeline(tiny), people, plan)


def measured(tiny: Checkpoints, settings: Evaluate, people: list[Person], conditions: Conditions) -> pd.DataFrame:
    return measure_previews(tiny, settings, people, conditions, FaceReader(tiny.faces))


def test_one_row_a_timestep_and_strength(
    tiny: Checkpoints, quick: Evaluate, people: list[Person], conditions: Conditions
) -> None:
    table = measured(tiny, quick, people, conditions)
    assert list(zip(table["t"], table["scale"], strict=True)) == [(100, 0.0), (100, 1.0), (900, 0.0), (900, 1.0)]
    assert table["error"].gt(0).all() and table["found"].between(0, 1).all()
    assert (table["identity_low"] <= table["identity"]).all() and (table["identity"] <= table["identity_high"]).all()
    errors = table.set_index(["t", "scale"])["error"]
    assert errors[100, 0.0] != errors[100, 1.0]  # the child is another model than the base


def test_the_noisier_the_less_of_the_miniatures_people_is_seen() -> None:
    """On the real parts: a preview's error grows with t, and its recognisability falls."""
    world = read_params().worlds["miniature"]
    curves = PreviewCurves(people=6, timesteps=[99, 549, 949], scales=[0.0])
    settings = read_evaluate(world.evaluate).model_copy(update={"people": 6, "previews": curves})
    people = read_people(Path(settings.portraits), 6)
    plan = make_plan(read_prompts(settings.prompts), settings)
    told = encode_conditions(world.checkpoints, open_pipeline(world.checkpoints), people, plan)
    table = measured(world.checkpoints, settings, people, told)
    assert table["error"].is_monotonic_increasing and table["identity"].is_monotonic_decreasing


def test_twice_is_the_same(tiny: Checkpoints, quick: Evaluate, people: list[Person], conditions: Conditions) -> None:
    torch.manual_seed(1)
    first = measured(tiny, quick, people, conditions)
    torch.manual_seed(2)
    pd.testing.assert_frame_equal(first, measured(tiny, quick, people, conditions))


def test_people_without_a_second_photo_are_told(
    tiny: Checkpoints, quick: Evaluate, people: list[Person], conditions: Conditions
) -> None:
    alone = [Person(person.name, person.reference, ()) for person in people]
    with pytest.raises(InputError, match=r"previews\.people is 2, but 0 people"):
        measured(tiny, quick, alone, conditions)
