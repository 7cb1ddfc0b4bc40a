"""Several processes evaluate: each draws and scores its share, and together they give the bytes of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from lookahead.config import Checkpoints, Evaluate
from lookahead.evaluation.evaluate import evaluate
from tests.evaluation.conftest import Encoders
from tests.launcher import launch

CODE = """
import sys
from pathlib import Path
import torch
from lookahead.config import Checkpoints, Evaluate
from lookahead.evaluation.evaluate import evaluate

torch.set_num_threads(1)
checkpoints, settings, noise_only, tuned, work, cache = sys.argv[1:]
loaded = Checkpoints.model_validate_json(checkpoints), Evaluate.model_validate_json(settings)
encoders = {"noise_only": Path(noise_only), "tuned": Path(tuned)}
evaluate(*loaded, encoders, 0, Path(work), lambda _numbers, _step: None, Path(cache))
"""


def files(folder: Path) -> Mapping[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_two_processes_of_accelerate_give_the_bytes_of_one(
    tiny: Checkpoints, quick: Evaluate, encoders: Encoders, tmp_path: Path
) -> None:
    one, two, script = tmp_path / "one", tmp_path / "two", tmp_path / "evaluate.py"
    evaluate(tiny, quick, encoders, 0, one / "work", lambda _numbers, _step: None, one / "cache")
    script.write_text(CODE)
    folders = [str(path) for path in (*encoders.values(), two / "work", two / "cache")]
    launch(str(script), tiny.model_dump_json(), quick.model_dump_json(), *folders)
    assert files(two) == files(one)
