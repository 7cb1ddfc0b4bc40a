"""Several processes draw an evaluation: each its share, and together the bytes of one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from lookahead.config import Checkpoints, Evaluate
from lookahead.evaluation.drawing import open_evaluation
from lookahead.evaluation.evaluate import evaluate
from lookahead.evaluation.panel import fill
from lookahead.evaluation.pictures import lacking
from lookahead.models.adapter import ADAPTER_FILE
from tests.launcher import launch

CODE = """
import json
import sys
from pathlib import Path
import torch
from lookahead.config import Checkpoints, Evaluate
from lookahead.evaluation.drawing import assist
from lookahead.evaluation.evaluate import evaluate
from lookahead.world.processes import launched

torch.set_num_threads(1)
checkpoints, settings, encoder, work, store = sys.argv[1:]
if launched().first:
    loaded = Checkpoints.model_validate_json(checkpoints), Evaluate.model_validate_json(settings)
    variants = {"adapter": None, "noise_only": Path(encoder), "tuned": Path(encoder)}
    evaluate(*loaded, variants, Path(work), lambda _numbers, _step: None, Path(store))
else:
    assist()
"""


@pytest.fixture(scope="module")
def encoder(tiny: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The untuned adapter as a trained encoder."""
    folder = tmp_path_factory.mktemp("encoder")
    shutil.copy(Path(tiny.adapter.source) / tiny.adapter.weight_name, folder / ADAPTER_FILE)
    return folder


def files(folder: Path) -> Mapping[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_process_draws_its_shards_alone(
    tiny: Checkpoints, quick: Evaluate, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variants = {"adapter": None, "noise_only": encoder, "tuned": encoder}
    drawing = open_evaluation(tiny, quick, variants, tmp_path).drawings[0]
    plan, batch = drawing.panel.plan, quick.batch
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, others in (("1", [0, 2]), ("0", [])):
        monkeypatch.setenv("RANK", rank)
        fill(drawing.panel, drawing.ready, drawing.name, drawing.place)
        assert lacking(plan, batch, drawing.place) == []
        with monkeypatch.context() as alone:
            alone.setenv("WORLD_SIZE", "1")
            alone.setenv("RANK", "0")
            assert lacking(plan, batch, drawing.place) == others


@pytest.mark.slow
def test_two_processes_of_accelerate_give_the_bytes_of_one(
    tiny: Checkpoints, quick: Evaluate, encoder: Path, tmp_path: Path
) -> None:
    one, two, script = tmp_path / "one", tmp_path / "two", tmp_path / "evaluate.py"
    variants = {"adapter": None, "noise_only": encoder, "tuned": encoder}
    evaluate(tiny, quick, variants, one / "work", lambda _numbers, _step: None, one / "store")
    script.write_text(CODE)
    launch(
        str(script),
        tiny.model_dump_json(),
        quick.model_dump_json(),
        str(encoder),
        str(two / "work"),
        str(two / "store"),
    )
    assert files(two / "store") == files(one / "store")
    apart = {name: bytes_ for name, bytes_ in files(one / "work").items() if not name.endswith(".html")}
    assert {name: files(two / "work")[name] for name in apart} == apart
