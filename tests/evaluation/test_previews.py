"""The curves of one-step previews: against what previews are, in any batches, and what they need."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from lookahead.config import Checkpoints, Evaluate, PreviewCurves, read_params
from lookahead.errors import InputError
from lookahead.evaluation.cells import Cell
from lookahead.evaluation.evaluator import Evaluator, open_evaluator
from lookahead.evaluation.previews import measure_previews
from lookahead.portraits import Person
from tests.evaluation.conftest import layers_of


def measured(evaluator: Evaluator, cache: Path) -> pd.DataFrame:
    return measure_previews(evaluator, Cell("adapter", None, -1, "full", evaluator.settings.sampling), cache)


@pytest.fixture(scope="module")
def evaluator(tiny: Checkpoints, quick: Evaluate) -> Evaluator:
    return open_evaluator(tiny, quick)


@pytest.fixture(scope="module")
def table(evaluator: Evaluator, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return measured(evaluator, tmp_path_factory.mktemp("cache"))


def test_one_row_a_timestep_and_strength(table: pd.DataFrame) -> None:
    assert list(zip(table["t"], table["scale"], strict=True)) == [(100, 0.0), (100, 1.0), (900, 0.0), (900, 1.0)]
    assert table["error"].gt(0).all() and table["found"].between(0, 1).all()
    assert (table["identity_low"] <= table["identity"]).all() and (table["identity"] <= table["identity_high"]).all()
    errors = table.set_index(["t", "scale"])["error"]
    assert errors[100, 0.0] != errors[100, 1.0]  # the child is another model than the base


def test_batches_change_nothing_and_the_pipeline_is_the_base_again(
    tiny: Checkpoints, quick: Evaluate, table: pd.DataFrame, tmp_path: Path
) -> None:
    alone = open_evaluator(tiny, quick.model_copy(update={"batch_size": 1}))
    layers = layers_of(alone.pipe.unet)
    pd.testing.assert_frame_equal(measured(alone, tmp_path), table, rtol=1e-4, atol=1e-4)
    assert layers_of(alone.pipe.unet) == layers


def test_the_noisier_the_less_of_the_miniatures_people_is_seen(tmp_path: Path) -> None:
    """On the real parts: a preview's error grows with t, and its recognisability falls."""
    world = read_params().worlds["miniature"]
    curves = PreviewCurves(people=6, timesteps=[99, 549, 949], scales=[0.0])
    changes = {"people": 6, "split": "validation", "previews": curves}
    table = measured(open_evaluator(world.checkpoints, world.evaluation().model_copy(update=changes)), tmp_path)
    assert table["error"].is_monotonic_increasing and table["identity"].is_monotonic_decreasing


def test_too_few_people_with_a_second_photo_are_refused(evaluator: Evaluator, tmp_path: Path) -> None:
    alone = replace(evaluator, people=[Person(person.name, person.reference, ()) for person in evaluator.people])
    with pytest.raises(InputError, match=r"previews\.people is 2, but 0 people"):
        measured(alone, tmp_path)
