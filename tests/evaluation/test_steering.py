"""The steered method: a row of its own beside the tuned one, with faces to aim at, and nothing left behind."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from lookahead.cli.stages import headline_rows
from lookahead.config import Checkpoints, Evaluate, Steering, with_overrides
from lookahead.errors import InputError
from lookahead.evaluation.album import read_album
from lookahead.evaluation.compare import compare, read_run
from lookahead.evaluation.evaluate import evaluate
from lookahead.evaluation.methods import COMPARISONS, METHODS, STEERED, VARIANTS, encoders_of
from lookahead.evaluation.metrics import METRICS, SPREAD
from lookahead.evaluation.panel import Panel, open_panel, open_sampler
from lookahead.evaluation.protocol import HASH, STEERING, describe, differences
from lookahead.evaluation.steering import aimed, steering, steering_key
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.sampling.loop import Sampler, draw
from lookahead.world import Pipeline, open_pipeline
from tests.tiny import with_bright_previews

SETTINGS = Steering(strength=0.3, timestep_min=0, timestep_max=999, preview_steps=1)


@pytest.fixture(scope="module")
def bright(tiny: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """The tiny world with previews that show a face."""
    return with_bright_previews(tiny, tmp_path_factory.mktemp("bright"))


@pytest.fixture(scope="module")
def guided(quick: Evaluate) -> Evaluate:
    """The quick evaluation with a steered row."""
    return with_overrides(quick, {"steering": SETTINGS})


@pytest.fixture(scope="module")
def encoder(tiny: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untuned adapter's file as an encoder, so that nothing but the guidance can differ."""
    folder = tmp_path_factory.mktemp("encoder")
    shutil.copy(Path(tiny.adapter.source) / tiny.adapter.weight_name, folder / ADAPTER_FILE)
    return folder


@pytest.fixture(scope="module")
def logged() -> dict[str, float]:
    """The numbers that the finished evaluation logged."""
    return {}


@pytest.fixture(scope="module")
def work(
    bright: Checkpoints,
    guided: Evaluate,
    encoder: Path,
    logged: dict[str, float],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished evaluation with a steered row."""
    work, store = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("store")
    variants = {"adapter": None, "noise_only": encoder, "tuned": encoder}
    evaluate(bright, guided, variants, work, lambda numbers, step: logged.update(numbers), store)
    return work


@pytest.fixture(scope="module")
def pipe(bright: Checkpoints) -> Pipeline:
    return open_pipeline(bright)


@pytest.fixture(scope="module")
def panel(bright: Checkpoints, guided: Evaluate, pipe: Pipeline) -> Panel:
    return aimed(open_panel(bright, guided, pipe), pipe)


Metrics = Mapping[str, Mapping[str, Mapping[str, float]]]


def metrics_of(work: Path) -> Metrics:
    read: Metrics = json.loads((work / "metrics.json").read_text())
    return read


def test_it_is_a_method_with_a_comparison(work: Path) -> None:
    metrics = metrics_of(work)
    assert {*VARIANTS, STEERED, "difference", "gain", "steering_gain"} < set(metrics)
    assert set(metrics[STEERED]) == set(metrics["steering_gain"]) == set(METRICS | SPREAD)
    assert metrics["gain"]["clip_t"]["mean"] == 0 != metrics["steering_gain"]["clip_t"]["mean"]
    change = metrics[STEERED]["clip_t"]["mean"] - metrics["tuned"]["clip_t"]["mean"]
    assert metrics["steering_gain"]["clip_t"]["mean"] == pytest.approx(change)


def test_no_further_noises_are_drawn_of_it(work: Path) -> None:
    assert {path.name for path in (work / "pictures" / "spread").iterdir()} == {*VARIANTS, "base"}
    assert STEERED not in set(pd.read_parquet(work / "spread.parquet")["method"])
    empty = {"mean": None, "low": None, "high": None}
    assert all(metrics_of(work)[group][name] == empty for group in (STEERED, "steering_gain") for name in SPREAD)


def test_it_is_wherever_methods_are(work: Path, guided: Evaluate, logged: dict[str, float]) -> None:
    page = (work / "report.html").read_text()
    assert METHODS[STEERED].name in page and COMPARISONS["steering_gain"].name in page
    assert "None" not in page and "nan" not in page.split("base64")[0]
    assert re.search(r"<td>–<small></small>\s*</td>", page)  # what is not measured is no "no difference"
    assert not re.search(r"<td>–<small></small><small", page)
    assert page.count("<img ") == guided.grid_people * (1 + 4 * (guided.photo_prompts + 5)) + 3
    table = pd.read_parquet(work / "per_image.parquet")
    assert table.groupby("method", sort=False).size().index.tolist() == [*VARIANTS, STEERED]
    assert set(pd.read_csv(work / "groups.csv")["method"]) == {*VARIANTS, STEERED}
    assert len(read_album(work / "album.parquet")[STEERED]) == guided.grid_people * (guided.photo_prompts + 5)
    with Image.open(work / "grids" / "people.png") as grid:
        assert grid.height > 9 * 128  # a reference, and a photo and a style of each of four methods
    assert logged["steering_gain.identity"] == metrics_of(work)["steering_gain"]["identity"]["mean"]
    assert "steered.diversity" not in logged and "tuned.diversity" in logged


def test_the_headline_and_a_comparison_have_it(work: Path, guided: Evaluate) -> None:
    names = [row[0] for row in headline_rows(json.loads((work / "metrics.json").read_text()))]
    assert METHODS[STEERED].name in names and COMPARISONS["steering_gain"].name in names
    runs = [read_run(method, work, method) for method in ("tuned", STEERED)]
    found = {one.figure: one.change.row() for one in compare(runs, guided.bootstrap) if one.group == "all"}
    assert found["identity"] == metrics_of(work)["steering_gain"]["identity"]


def test_the_protocol_tells_the_settings_outside_of_its_hash(
    work: Path, bright: Checkpoints, quick: Evaluate, panel: Panel
) -> None:
    told = json.loads((work / "protocol.json").read_text())
    plain = describe(quick, bright, panel.people, panel.plan)
    assert told[STEERING] == SETTINGS.model_dump() and plain[STEERING] is None
    assert told[HASH] == plain[HASH] and differences(told, plain) == []


def test_null_leaves_it_out(encoder: Path) -> None:
    variants = {"adapter": None, "noise_only": encoder, "tuned": encoder}
    assert set(encoders_of(variants, None)) == set(VARIANTS)
    assert list(encoders_of(variants, SETTINGS)) == [*VARIANTS, STEERED]


def test_everybody_aims_at_the_own_reference_by_pack_loss(panel: Panel) -> None:
    """Against what insightface itself says of the photos, by the detector of another pack."""
    aims = panel.conditions.aims
    assert aims is not None and torch.allclose(aims.norm(dim=1), torch.ones(len(panel.people)))
    theirs = torch.from_numpy(np.stack([one["loss"] for one in panel.judges.references])).to(aims)
    assert ((aims @ theirs.T).argmax(1) == torch.arange(len(aims))).all()
    shots = panel.plan.shots[::3]
    found = panel.conditions.aimed_at(shots)
    assert found is not None and torch.equal(found, aims[[shot.person for shot in shots]])


def test_a_reference_without_a_face_is_named(panel: Panel, pipe: Pipeline, tmp_path: Path) -> None:
    dark = tmp_path / "dark.png"
    Image.new("RGB", (64, 64)).save(dark)
    people = [replace(panel.people[0], reference=dark), *panel.people[1:]]
    with pytest.raises(InputError, match=r"no face is found by pack `loss` in the reference photo .*dark\.png"):
        aimed(replace(panel, people=people), pipe)


def drawn(panel: Panel, sampler: Sampler) -> Tensor:
    shots = panel.plan.shots[:2]
    given, free = panel.conditions.given(panel.plan, shots), panel.conditions.nothing(2)
    seeds = [shot.seed for shot in shots]
    return draw(sampler, given, free, seeds, panel.conditions.reference(shots), panel.conditions.aimed_at(shots))


def test_the_fast_child_is_there_while_steering_only(bright: Checkpoints, panel: Panel, pipe: Pipeline) -> None:
    """So that whatever is drawn next, by the same pipeline, is the same to the bit; and it can be steered again."""
    sampler = open_sampler(bright, pipe, panel.protocol, None)
    layers = {name: type(module) for name, module in pipe.unet.named_modules()}
    before = drawn(panel, sampler)
    with steering(sampler, bright, SETTINGS) as steered:
        first = drawn(panel, steered)
    assert {name: type(module) for name, module in pipe.unet.named_modules()} == layers
    assert torch.equal(drawn(panel, sampler), before)
    with steering(sampler, bright, SETTINGS) as steered:
        assert torch.equal(drawn(panel, steered), first)
    assert (first - before).abs().max() > 0.05
    with steering(sampler, bright, SETTINGS.model_copy(update={"strength": 0.0})) as steered:
        torch.testing.assert_close(drawn(panel, steered), before)


@pytest.mark.parametrize("change", [{"strength": 0.2}, {"timestep_min": 9}, {"timestep_max": 9}, {"preview_steps": 2}])
def test_other_settings_are_another_shelf(change: dict[str, float], bright: Checkpoints) -> None:
    changed = SETTINGS.model_copy(update=change)
    assert steering_key(bright, changed) != steering_key(bright, SETTINGS) == steering_key(bright, SETTINGS)


def test_other_models_that_steer_are_another_shelf(tiny: Checkpoints, bright: Checkpoints) -> None:
    assert steering_key(tiny, SETTINGS) != steering_key(bright, SETTINGS)  # another preview decoder
    faces = bright.faces.model_copy(update={"loss": bright.faces.select})
    assert steering_key(bright.model_copy(update={"faces": faces}), SETTINGS) != steering_key(bright, SETTINGS)
    faces = bright.faces.model_copy(update={"report": bright.faces.select})
    assert steering_key(bright.model_copy(update={"faces": faces}), SETTINGS) == steering_key(bright, SETTINGS)
