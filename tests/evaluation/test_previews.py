"""The curves of one-step previews: against what previews are, in any batches, and what they need."""

from pathlib import Path

import pandas as pd
import pytest

from lookahead.config import Checkpoints, Evaluate, PreviewCurves, read_params, with_overrides
from lookahead.errors import InputError
from lookahead.evaluation.cells import Cell
from lookahead.evaluation.evaluate import evaluate
from lookahead.evaluation.evaluator import Evaluator, open_evaluator
from lookahead.evaluation.previews import measure_previews
from tests.evaluation.conftest import Encoders, layers_of
from tests.tiny import no_log


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
    layers, seen = layers_of(alone.pipe.unet), set[int]()
    for network in (alone.pipe.unet, alone.pipe.vae.encoder):
        network.register_forward_pre_hook(lambda _, given: seen.add(len(given[0])))
    pd.testing.assert_frame_equal(measured(alone, tmp_path), table, rtol=1e-4, atol=1e-4)
    assert layers_of(alone.pipe.unet) == layers
    assert seen == {1}  # references and previews alike


def test_the_noisier_the_less_of_the_miniatures_people_is_seen(tmp_path: Path) -> None:
    """On the real parts: a preview's error grows with t, and its recognisability falls."""
    world = read_params().worlds["miniature"]
    curves = PreviewCurves(people=6, timesteps=[99, 549, 949], scales=[0.0])
    changes = {"people": 6, "split": "validation", "previews": curves}
    table = measured(open_evaluator(world.checkpoints, world.evaluation().model_copy(update=changes)), tmp_path)
    assert table["error"].is_monotonic_increasing and table["identity"].is_monotonic_decreasing


def test_too_few_people_with_a_second_photo_are_refused_before_anything_is_drawn(
    tiny: Checkpoints, quick: Evaluate, encoders: Encoders, tmp_path: Path
) -> None:
    many = with_overrides(quick, {"previews.people": 9})
    with pytest.raises(InputError, match=r"previews\.people is 9, but 4 people have a second photo"):
        evaluate(tiny, many, encoders, 0, tmp_path / "work", no_log, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
