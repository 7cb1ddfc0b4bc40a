"""The face check: what is kept and why, retrieval, and nobody of an evaluation in the dataset."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lookahead.config import Checkpoints, Generate
from lookahead.dataset.faces import (
    FEW,
    KEPT,
    NO_FACE,
    REASONS,
    SEVERAL,
    UNLIKE,
    check_faces,
    find_face,
    unit,
)
from lookahead.dataset.summary import rank_one, summarise
from lookahead.world import open_faces
from tests.tiny_faces import save_detector

A, B, C = np.eye(3, dtype=np.float32)
Row = tuple[int, str, np.ndarray | None]


def _columns(*rows: Row, second_face: float = 0.0) -> tuple[pd.DataFrame, np.ndarray]:
    """What the face check knows of pictures: (identity, style, face) each; `second_face` is that of the last one."""
    identity, style, faces = zip(*rows, strict=True)
    columns = pd.DataFrame({"identity": identity, "style": pd.Categorical(style), "second_face": 0.0})
    columns.loc[len(rows) - 1, "second_face"] = second_face
    columns = columns.assign(photo=columns["style"] == "photo", found=[face is not None for face in faces])
    return columns, np.stack([np.zeros(3, np.float32) if face is None else face for face in faces])


def _settings(settings: Generate, photo: float = 0.5, images: int = 2) -> Generate:
    changes = {"min_photo_similarity": photo, "min_stylised_similarity": 0.2, "min_images": images}
    return settings.model_copy(update=changes)


def _near(vector: np.ndarray, amount: float) -> np.ndarray:
    return unit(vector + amount * C)


def _with_reasons(columns: pd.DataFrame, *reasons: str) -> pd.DataFrame:
    return columns.assign(reason=pd.Categorical(reasons, REASONS))


def test_an_odd_photo_a_strange_drawing_and_a_missing_face_are_dropped_and_say_why(settings: Generate) -> None:
    photos = [(0, "photo", A), (0, "photo", _near(A, 0.1)), (0, "photo", _near(A, 0.2)), (0, "photo", B)]
    drawings = [(0, "oil", _near(A, 1.0)), (0, "oil", _near(B, 0.1)), (0, "oil", None)]
    checked = check_faces(*_columns(*photos, *drawings), _settings(settings))
    assert checked["reason"].tolist() == [KEPT, KEPT, KEPT, UNLIKE, KEPT, UNLIKE, NO_FACE]
    assert checked["similarity"].isna().tolist() == [False] * 6 + [True]


def test_a_picture_is_never_compared_with_itself(settings: Generate) -> None:
    checked = check_faces(*_columns((0, "photo", A), (0, "photo", B)), _settings(settings, photo=-1))
    assert checked["similarity"].tolist() == [0, 0]


def test_people_with_one_photo_or_few_pictures_are_dropped_whole(settings: Generate) -> None:
    one_photo = [(0, "photo", A), (0, "photo", None), (0, "oil", A), (0, "oil", A)]
    few = [(1, "photo", B), (1, "photo", B)]
    checked = check_faces(*_columns(*one_photo, *few), _settings(settings, photo=-1, images=3))
    assert checked["reason"].tolist() == [FEW, NO_FACE, FEW, FEW, FEW, FEW]


def test_a_picture_of_several_people_is_dropped_and_compared_with_no_other(settings: Generate) -> None:
    rows = [(0, "photo", A), (0, "photo", A), (0, "oil", A), (0, "photo", B)]
    checked = check_faces(*_columns(*rows, second_face=0.5), _settings(settings))
    assert checked["reason"].tolist() == [KEPT, KEPT, KEPT, SEVERAL]
    assert np.isnan(checked["similarity"].iloc[-1])
    metrics = summarise(checked)
    assert metrics["dropped"][SEVERAL] == 1
    assert metrics["styles"]["photo"]["dropped"][SEVERAL] == pytest.approx(1 / 3)


def test_the_metrics_tell_people_apart(settings: Generate) -> None:
    rows = [(0, "photo", A), (0, "photo", A), (0, "oil", _near(A, 0.5)), (1, "photo", B), (1, "photo", B)]
    metrics = summarise(check_faces(*_columns(*rows), _settings(settings)))
    assert metrics["same_person"] == pytest.approx((4 + 1 / np.sqrt(1.25)) / 5)
    assert metrics["other_person"] == pytest.approx(0)
    assert (metrics["kept"], metrics["images"], metrics["people"], metrics["faces_found"]) == (1, 5, 2, 1)
    assert metrics["styles"]["oil"]["kept"] == 1


def test_a_held_back_picture_finds_its_person_and_no_photo_itself() -> None:
    photos = [(7, "photo", A), (7, "photo", A), (9, "photo", B), (9, "photo", B)]
    drawings = [(7, "oil", unit(A + 0.5 * B)), (9, "oil", unit(A + 0.5 * B))]
    columns, faces = _columns(*photos, *drawings)
    assert rank_one(_with_reasons(columns, *[KEPT] * 6), faces) == {"photos": 1.0, "stylised": 0.5}
    assert rank_one(_with_reasons(columns, *[KEPT] * 4, UNLIKE, KEPT), faces)["stylised"] == 0.0
    assert rank_one(_with_reasons(columns, *[FEW] * 6), faces) == {"photos": 0.0, "stylised": 0.0}
    # Each one's other photo shows somebody else, so that only the photo itself could be the match.
    columns, faces = _columns((0, "photo", A), (0, "photo", C), (1, "photo", unit(A + C)), (1, "photo", A))
    assert rank_one(_with_reasons(columns, *[KEPT] * 4), faces)["photos"] < 1


def test_the_largest_face_is_found_and_the_dark_has_none(tiny_world: Checkpoints) -> None:
    faces = open_faces(tiny_world.faces.select, tiny_world.faces.detection_size)
    face = find_face(faces, np.full((64, 64, 3), 140, dtype=np.uint8))
    assert face is not None
    assert face.box.shape == (4,)
    assert face.landmarks.shape == (5, 2)
    assert np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-5)
    assert find_face(faces, np.zeros((64, 64, 3), dtype=np.uint8)) is None


@pytest.mark.parametrize(("seen", "second"), [({"doubled": True}, False), ({"faces": 2}, True)])
def test_a_face_that_is_found_twice_is_no_second_one(
    own_world: Checkpoints, seen: dict[str, int], second: bool
) -> None:
    save_detector(Path(own_world.faces.select) / "detector.onnx", **seen)
    faces = open_faces(own_world.faces.select, own_world.faces.detection_size)
    picture = np.full((64, 64, 3), 140, dtype=np.uint8)
    assert len(faces.models["detection"].detect(picture)[0]) == 2  # what the detector itself says
    face = find_face(faces, picture)
    assert face is not None
    assert (face.second_face > 0) == second
