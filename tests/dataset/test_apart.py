"""Nobody of an evaluation gets into the dataset: not by name, and not by face."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lookahead.artifacts import read_json
from lookahead.config import Checkpoints, Generate
from lookahead.dataset.apart import EVALUATED, Evaluated, check_names, drop_evaluated, likenesses
from lookahead.dataset.consistency import FEW, Sight, Verdict, unit
from lookahead.dataset.plan import plan_pictures
from lookahead.dataset.prompts import read_prompts
from lookahead.dataset.shards import Pixels, list_shards, read_pictures
from lookahead.dataset.synthesis import synthesise
from lookahead.errors import InputError
from tests.dataset.conftest import no_log

A, B, C = np.eye(3, dtype=np.float32)
KEPT = Verdict(1.0, 0.0, "")
LEAKED = 1  # the person whose picture is among the portraits


@pytest.fixture
def portrait(dataset: Path) -> Pixels:
    """A photo of somebody in the dataset."""
    index = _column(dataset, "identity").index(LEAKED)  # photos come first
    pictures = [pixels for path in list_shards(dataset) for _, pixels in read_pictures(path)]
    return pictures[index]


@pytest.fixture
def drawn(dataset: Path, tmp_path: Path) -> Path:
    """A workspace in which everything is drawn and nothing is judged."""
    shutil.copytree(dataset / "shards", tmp_path / "shards")
    return tmp_path


def _column(folder: Path, name: str) -> list[object]:
    values: list[object] = pq.read_table(folder / "table.parquet")[name].to_pylist()
    return values


def test_a_person_with_a_face_of_the_evaluation_is_dropped_and_says_why(
    tiny_world: Checkpoints, settings: Generate, dataset: Path, drawn: Path, portrait: Pixels
) -> None:
    known = [(Path("portraits/test/000"), portrait)]
    synthesise(tiny_world, settings, known, drawn, no_log)
    assert set(_column(drawn, "reason")) == {""}
    nearest = read_json(drawn / "metrics.json")["nearest_evaluation_person"]
    synthesise(tiny_world, settings.model_copy(update={"evaluation_likeness": nearest - 1e-4}), known, drawn, no_log)
    people, reasons = _column(drawn, "identity"), _column(drawn, "reason")
    (nearest_person,) = {who for who, reason in zip(people, reasons, strict=True) if reason == EVALUATED}
    own = [who == nearest_person for who in people]  # by a recogniser without training, not always whose photo it is
    assert reasons == [EVALUATED if mine else "" for mine in own]
    assert _column(drawn, "kept") == [not mine for mine in own]
    metrics = read_json(drawn / "metrics.json")
    assert metrics["dropped"][EVALUATED] == sum(own) == 5
    assert metrics["people"] == 2 and metrics["nearest_evaluation_person"] < nearest
    card = (drawn / "README.md").read_text(encoding="utf-8")
    assert f"the nearest pair has a similarity of {metrics['nearest_evaluation_person']:.3f}" in card


def test_a_name_of_the_evaluation_is_refused_before_anything_is_drawn(
    tiny_world: Checkpoints, settings: Generate, portrait: Pixels, tmp_path: Path
) -> None:
    name = plan_pictures(read_prompts(settings.prompts), settings)[0].name
    folder = Path("portraits/search") / name.replace(" ", "_").title()
    with pytest.raises(InputError, match=f"'{name}' is to be drawn, and is a person of the evaluation: {folder}"):
        synthesise(tiny_world, settings, [(folder, portrait)], tmp_path, no_log)
    assert not (tmp_path / "shards").exists()


def test_a_portrait_without_a_face_is_refused(tiny_world: Checkpoints, settings: Generate, tmp_path: Path) -> None:
    """It could not be told from anybody."""
    black = (Path("portraits/test/007"), np.zeros((64, 64, 3), dtype=np.uint8))
    with pytest.raises(InputError, match="no face is found in the first photo of portraits/test/007"):
        synthesise(tiny_world, settings, [black], tmp_path, no_log)
    assert not (tmp_path / "shards").exists()


def test_without_portraits_the_card_says_that_nobody_was_compared(dataset: Path) -> None:
    metrics = read_json(dataset / "metrics.json")
    assert (metrics["evaluation_people"], metrics["nearest_evaluation_person"]) == (0, None)
    assert "the evaluation's folders of portraits were empty" in (dataset / "README.md").read_text(encoding="utf-8")


def test_names_that_merely_begin_alike_are_nobodys() -> None:
    check_names({"anna abel", "020"}, Evaluated([Path("test/anna"), Path("test/02")], np.zeros((0, 1), "f4")))


def test_the_mean_of_the_kept_photos_is_compared_with_the_nearest_face() -> None:
    """A stylised picture and a dropped photo do not count."""
    sights = [
        Sight(4, "photo", A),
        Sight(4, "photo", B),
        Sight(4, "photo", C),
        Sight(4, "oil", C),
        Sight(6, "photo", C),
    ]
    verdicts = [KEPT, KEPT, Verdict(0.1, 0.0, FEW), KEPT, KEPT]
    found = likenesses(sights, verdicts, "photo", np.stack([A, unit(A + 2 * B)]))
    assert found == pytest.approx({4: 3 / np.sqrt(10), 6: 0.0})
    assert [v.reason for v in drop_evaluated(sights, verdicts, found, 0.9)] == [EVALUATED] * 2 + [FEW, EVALUATED, ""]
