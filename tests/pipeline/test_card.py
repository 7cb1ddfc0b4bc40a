"""The model card of an exported encoder: what it says, and that its code runs."""

import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

from lookahead.config import read_params
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.pipeline import LookaheadPipeline
from lookahead.pipeline.pipeline import CARD, card, export
from tests.modules import ROOT


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed adapter, exported; unlike the tiny world's, its checkpoints are kept in half precision."""
    world, folder = read_params().worlds["miniature"], tmp_path_factory.mktemp("miniature")
    export(LookaheadPipeline(world.checkpoints, world.personalize, None), folder, None)
    return folder


@pytest.mark.parametrize("which", ["exported", "miniature"])
def test_the_code_on_the_card_runs(which, request, tmp_path, monkeypatch, photos):
    folder: Path = request.getfixturevalue(which)
    text = (folder / CARD).read_text(encoding="utf-8")
    ours, stock = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "this folder").symlink_to(folder)
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    for code, name in ((ours, "pictures"), (stock, "picture")):
        (tmp_path / "code.py").write_text(code)
        drawn = runpy.run_path("code.py", init_globals={"portrait": photos[0]})[name]
        assert isinstance(drawn[0] if name == "pictures" else drawn, Image.Image)


def test_the_card_names_what_was_measured_files_and_licences(exported, pipe, tiny_world):
    row = {"identity": {"mean": 0.5, "low": 0.4, "high": 0.6}, "prompt": {"mean": 0.9, "low": 0.8, "high": 1.0}}
    text = card(pipe, {"adapter": row, "tuned": row})
    assert "\n| tuned with lookahead | 0.500 [0.400, 0.600] | 0.900 [0.800, 1.000] |" in text
    assert "\n| untuned adapter | 0.500" in text and "noise loss only" not in text
    text = (exported / CARD).read_text(encoding="utf-8")
    assert all(part in text for part in ("Licences", "impersonation", "Not measured", tiny_world.base, ADAPTER_FILE))
