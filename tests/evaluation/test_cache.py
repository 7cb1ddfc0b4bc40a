"""The keys of cached pictures and scores: whatever decides them is in the key, and nothing else is."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lookahead.artifacts
from lookahead.artifacts import code_digest
from lookahead.config import Checkpoints, Evaluate, with_overrides
from lookahead.evaluation import pictures, samplers, scores
from lookahead.evaluation.cells import Cell, base_cell, main_cells
from lookahead.evaluation.evaluator import Evaluator, open_evaluator
from lookahead.evaluation.samplers import CODE
from lookahead.models.kv_encoder import KV_FILE, new_kv_encoder, save_kv_encoder
from lookahead.world import open_pipeline
from tests.evaluation.conftest import Encoders
from tests.modules import PACKAGE, closure

PICTURES, SCORES = "pictures", "scores"
DECIDES = {  # by folder or file of the package: the keys that an edit of it moves
    "models/fast_child.py": {PICTURES},
    "sampling/conditions.py": {PICTURES},
    "evaluation/samplers.py": {PICTURES},
    "portraits.py": {PICTURES, SCORES},
    "world/diffusion.py": {PICTURES, SCORES},
    "evaluation/scores.py": {SCORES},
    "evaluation/evaluate.py": set(),
    "report/templates/page.html.j2": set(),
    "photos/importing.py": set(),
    "training/losses.py": set(),
    "search/objective.py": set(),
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, which keys are made of."""
    copy = tmp_path / "lookahead"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(lookahead.artifacts, "__file__", str(copy / "artifacts.py"))
    return copy


def test_an_edit_moves_the_keys_of_what_it_decides(package: Path) -> None:
    def keys() -> dict[str, str]:
        return {PICTURES: code_digest(*CODE), SCORES: code_digest(*scores.CODE)}

    for name, wanted in DECIDES.items():
        assert (package / name).is_file(), name
        before = keys()
        with (package / name).open("a") as file:
            file.write("\n# an edit\n")
        after = keys()
        assert {key for key in before if before[key] != after[key]} == wanted, name


@pytest.mark.parametrize(
    ("starts", "code"),
    [([Path(samplers.__file__), Path(pictures.__file__)], CODE), ([Path(scores.__file__)], (*CODE, *scores.CODE))],
    ids=["pictures", "scores"],
)
def test_the_folders_of_a_key_hold_all_that_decides(starts: list[Path], code: tuple[str, ...]) -> None:
    """What drawing imports, except parameters, prompts (in the key as text), files and errors; scores name pictures."""
    harmless = {"config", "errors.py", "artifacts.py", "dataset"}
    for path in {found for start in starts for found in closure(start)}:
        name = path.relative_to(PACKAGE).as_posix()
        if name.split("/")[0] not in harmless and path.name != "__init__.py":
            assert any(name == part or name.startswith(f"{part}/") for part in code), name


def keys(evaluator: Evaluator, cells: list[Cell]) -> set[str]:
    return {evaluator.key(cell, evaluator.plan) for cell in cells}


def named(checkpoints: Checkpoints, settings: Evaluate, encoders: Encoders) -> set[str]:
    """The keys of the main cells and the base model."""
    cells = [*main_cells(encoders, settings, 0), base_cell(settings.sampling)]
    return keys(open_evaluator(checkpoints, settings), cells)


@pytest.mark.parametrize(
    "change",
    [
        {"num_inference_steps": 3},
        {"guidance_scale": 2.0},
        {"seed": 2},
        {"batch_size": 9},
        {"people": 3},
        "base",
        "photo",
    ],
    ids=str,
)
def test_another_protocol_base_or_photo_has_other_keys(
    change: Any, tiny: Checkpoints, quick: Evaluate, encoders: Encoders, tmp_path: Path
) -> None:
    other = tiny, with_overrides(quick, change if isinstance(change, dict) else {})
    if change == "base":
        base = Path(shutil.copytree(tiny.base, tmp_path / Path(tiny.base).name))
        (base / "model_index.json").write_text("{}")
        other = tiny.model_copy(update={"base": str(base)}), quick
    elif change == "photo":
        photos = Path(shutil.copytree(quick.portraits, tmp_path / "photos"))
        shutil.copy(photos / "001" / "0.jpg", photos / "000" / "0.jpg")
        other = tiny, with_overrides(quick, {"splits.test": str(photos)})
    assert not named(*other, encoders) & named(tiny, quick, encoders)


def test_names_training_seeds_and_what_scores_are_not_in_the_key(
    tiny: Checkpoints, quick: Evaluate, encoders: Encoders, tmp_path: Path
) -> None:
    moved = {name: Path(shutil.copytree(path, tmp_path / f"{name}_moved")) for name, path in encoders.items()}
    faces = tiny.faces.model_copy(update={"report": tiny.faces.select})
    changed = with_overrides(quick, {"grid_people": 1, "diversity.people": 3})
    assert named(tiny.model_copy(update={"faces": faces}), changed, moved) == named(tiny, quick, encoders)
    evaluator = open_evaluator(tiny, quick)
    one, other = (main_cells(encoders, quick, seed) for seed in (0, 1))
    assert keys(evaluator, one) == keys(evaluator, other)


def test_keys_and_values_are_in_the_key_where_they_are_used(
    tiny: Checkpoints, quick: Evaluate, encoders: Encoders, tmp_path: Path
) -> None:
    evaluator = open_evaluator(tiny, quick)
    encoder = Path(shutil.copytree(encoders["tuned"], tmp_path / "encoder"))
    used, unused = (quick.sampling.model_copy(update={"use_kv": use}) for use in (True, False))
    cells = [Cell("tuned", encoder, 0, "full", sampling) for sampling in (used, unused)]
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_kv_encoder(encoder / KV_FILE, new_kv_encoder(open_pipeline(tiny).unet, 2, 2, seed))
        found.append([evaluator.key(cell, evaluator.plan) for cell in cells])
    assert found[0][0] != found[1][0] and found[0][1] == found[1][1]


def test_references_are_encoded_in_batches(tiny: Checkpoints, quick: Evaluate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four people two at a time, by the VAE and by the image encoder, with the conditions of one batch."""
    seen: list[int] = []
    whole = open_evaluator(tiny, quick).conditions
    for name in ("reference_latents", "encode_photos"):
        original = getattr(pictures, name)

        def counted(*given: object, original: Callable[..., object] = original) -> object:
            seen.append(len(given[-1]))  # type: ignore[arg-type]
            return original(*given)

        monkeypatch.setattr(pictures, name, counted)
    parts = open_evaluator(tiny, quick.model_copy(update={"batch_size": 2})).conditions
    assert seen == [2] * 4
    torch.testing.assert_close(parts.latents, whole.latents)
    torch.testing.assert_close(parts.image, whole.image)
