"""The steered cell: faces to aim at, lookahead guidance while it is drawn, and nothing left behind."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lookahead.config import Checkpoints, Evaluate, Sampling, Steering, with_overrides
from lookahead.errors import InputError
from lookahead.evaluation.cells import CONTRASTS, HASH, STEERED, STEERING, TUNED, describe, differences, main_cells
from lookahead.evaluation.contrasts import contrasts
from lookahead.evaluation.evaluator import Evaluator, open_evaluator
from lookahead.evaluation.samplers import open_sampler, sampler_digest
from lookahead.sampling.loop import draw
from tests.evaluation.conftest import Encoders, layers_of
from tests.tiny import with_bright_previews

SETTINGS = Steering(strength=0.3, timestep_min=0, timestep_max=999, preview_steps=1)


@pytest.fixture(scope="module")
def bright(tiny: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """The tiny world with previews that show a face."""
    return with_bright_previews(tiny, tmp_path_factory.mktemp("bright"))


@pytest.fixture(scope="module")
def evaluator(bright: Checkpoints, quick: Evaluate) -> Evaluator:
    """Of the quick evaluation, with a steered cell."""
    return open_evaluator(bright, with_overrides(quick, {"steering": SETTINGS}))


def test_it_is_a_cell_with_a_contrast_and_null_leaves_it_out(
    evaluator: Evaluator, encoders: Encoders, tmp_path: Path
) -> None:
    cells = main_cells(encoders, evaluator.settings, 0)
    table = evaluator.run([cell for cell in cells if cell.name in (TUNED, STEERED)], None, tmp_path, people=2)
    (found,) = contrasts(table, CONTRASTS, ("clip_t",)).itertuples()
    means = table.groupby("cell")["clip_t"].mean()
    assert found.contrast == "steering" and found.mean == pytest.approx(means[STEERED] - means[TUNED])
    assert found.mean != 0
    plain = main_cells(encoders, evaluator.settings.model_copy(update={"steering": None}), 0)
    assert [cell.name for cell in cells] == [*(cell.name for cell in plain), STEERED]


def test_its_settings_are_outside_of_the_protocols_hash(evaluator: Evaluator, quick: Evaluate) -> None:
    own = describe(evaluator.settings, evaluator.checkpoints, evaluator.people, evaluator.plan)
    plain = describe(quick, evaluator.checkpoints, evaluator.people, evaluator.plan)
    assert own[STEERING] == SETTINGS.model_dump() and plain[STEERING] is None
    assert own[HASH] == plain[HASH] and differences(own, plain) == []


def test_everybody_aims_at_the_own_reference_by_pack_loss_in_any_batches(evaluator: Evaluator) -> None:
    """Against insightface's own embeddings of the photos, by the detector of another pack."""
    aims = evaluator.aims
    assert torch.allclose(aims.norm(dim=1), torch.ones(len(evaluator.people)))
    theirs = torch.from_numpy(np.stack([one["loss"] for one in evaluator.scorers.references])).to(aims)
    assert ((aims @ theirs.T).argmax(1) == torch.arange(len(aims))).all()
    alone = open_evaluator(evaluator.checkpoints, evaluator.settings.model_copy(update={"batch_size": 1}))
    torch.testing.assert_close(alone.aims, aims)


def test_a_reference_without_a_face_is_named(evaluator: Evaluator, tmp_path: Path) -> None:
    dark = tmp_path / "dark.png"
    Image.new("RGB", (64, 64)).save(dark)
    people = [replace(evaluator.people[0], reference=dark), *evaluator.people[1:]]
    with pytest.raises(InputError, match=r"no face is found by pack `loss` in the reference photo .*dark\.png"):
        _ = replace(evaluator, people=people).aims


def drawn(evaluator: Evaluator, sampling: Sampling) -> Tensor:
    shots, conditions = evaluator.plan.shots[:2], evaluator.conditions
    given, free = conditions.given(evaluator.plan, shots), conditions.nothing(2)
    seeds, aims = [shot.noise_seed for shot in shots], evaluator.aims[[shot.person for shot in shots]]
    opened = (evaluator.pipe, evaluator.checkpoints, None, sampling)
    with open_sampler(*opened, lambda: evaluator.identifier) as sampler:
        return draw(sampler, given, free, seeds, conditions.reference(shots), aims)


@pytest.mark.parametrize("change", [{"steering": SETTINGS}, {"fast": True, "scheduler": "LCMScheduler"}], ids=str)
def test_the_fast_child_is_on_the_pipeline_for_its_cell_only(evaluator: Evaluator, change: dict[str, object]) -> None:
    """So that whatever is drawn next, by the same pipeline, is the same to the bit; and it can be drawn again."""
    plain, unet = evaluator.settings.sampling, evaluator.pipe.unet
    other = plain.model_copy(update=change)
    before, scheduler, layers = drawn(evaluator, plain), evaluator.pipe.scheduler, layers_of(unet)
    first = drawn(evaluator, other)
    assert layers_of(unet) == layers
    assert evaluator.pipe.scheduler is scheduler
    assert torch.equal(drawn(evaluator, plain), before) and torch.equal(drawn(evaluator, other), first)
    assert (first - before).abs().max() > 0.05


def test_a_strength_of_zero_steers_nowhere(evaluator: Evaluator) -> None:
    plain = evaluator.settings.sampling
    nowhere = plain.model_copy(update={"steering": SETTINGS.model_copy(update={"strength": 0.0})})
    torch.testing.assert_close(drawn(evaluator, nowhere), drawn(evaluator, plain))


def test_settings_and_models_that_steer_are_in_the_key(tiny: Checkpoints, bright: Checkpoints, quick: Evaluate) -> None:
    def key(checkpoints: Checkpoints, **changes: float) -> list[object]:
        steering = SETTINGS.model_copy(update=changes)
        return sampler_digest(checkpoints, quick.sampling.model_copy(update={"steering": steering}))

    own = key(bright)
    for change in ({"strength": 0.2}, {"timestep_min": 9}, {"timestep_max": 9}, {"preview_steps": 2}):
        assert key(bright, **change) != own, change
    assert key(tiny) != own  # another preview decoder
    for pack, differs in (("loss", True), ("report", False)):
        faces = bright.faces.model_copy(update={pack: bright.faces.select})
        assert (key(bright.model_copy(update={"faces": faces})) != own) == differs
