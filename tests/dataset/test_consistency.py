from pathlib import Path

import numpy as np
import pytest

from lookahead.config import Checkpoints, Generate
from lookahead.dataset.consistency import FEW, KEPT, NO_FACE, SEVERAL, UNLIKE, Sight, find_face, judge, summarise, unit
from lookahead.world import open_faces
from tests.tiny_faces import save_detector

A, B = np.array([1, 0, 0], dtype=np.float32), np.array([0, 1, 0], dtype=np.float32)


def _settings(settings: Generate, photo: float = 0.5, stylised: float = 0.2, images: int = 2) -> Generate:
    return settings.model_copy(update={"keep_photo": photo, "keep_stylised": stylised, "keep_images": images})


def _near(vector: np.ndarray, amount: float) -> np.ndarray:
    return unit(vector + np.array([0, 0, amount], dtype=np.float32))


def _person(identity: int, *looks: tuple[str, np.ndarray | None]) -> list[Sight]:
    return [Sight(identity, style, embedding) for style, embedding in looks]


def test_an_odd_photo_a_strange_drawing_and_a_missing_face_are_dropped_and_say_why(settings: Generate) -> None:
    photos = [("photo", A), ("photo", _near(A, 0.1)), ("photo", _near(A, 0.2)), ("photo", B)]
    drawings = [("oil", _near(A, 1.0)), ("oil", _near(B, 0.1)), ("oil", None)]
    verdicts = judge(_person(0, *photos, *drawings), _settings(settings, photo=0.5), "photo")
    assert [v.reason for v in verdicts] == [KEPT, KEPT, KEPT, UNLIKE, KEPT, UNLIKE, NO_FACE]
    assert verdicts[-1].similarity is None


def test_a_picture_is_never_compared_with_itself(settings: Generate) -> None:
    verdicts = judge(_person(0, ("photo", A), ("photo", B)), _settings(settings, photo=-1), "photo")
    assert [v.similarity for v in verdicts] == [0, 0]


def test_people_with_one_photo_or_few_pictures_are_dropped_whole(settings: Generate) -> None:
    one_photo = _person(0, ("photo", A), ("photo", None), ("oil", A), ("oil", A))
    few = _person(1, ("photo", B), ("photo", B))
    verdicts = judge(one_photo + few, _settings(settings, photo=-1, images=3), "photo")
    assert {v.reason for v in verdicts} <= {FEW, NO_FACE, UNLIKE}


def test_a_picture_of_several_people_is_dropped_and_judges_no_other(settings: Generate) -> None:
    crowd = Sight(0, "photo", B, second_face=0.5)
    small = Sight(0, "oil", A, second_face=0.1)
    sights = [*_person(0, ("photo", A), ("photo", A)), crowd, small]
    verdicts = judge(sights, _settings(settings), "photo")
    assert [v.reason for v in verdicts] == [KEPT, KEPT, SEVERAL, KEPT]
    assert verdicts[2].similarity is None
    metrics = summarise(sights, verdicts)
    assert metrics["dropped"][SEVERAL] == 1  # type: ignore[index]
    assert metrics["styles"]["photo"]["dropped"][SEVERAL] == pytest.approx(1 / 3)  # type: ignore[index]


def test_the_metrics_tell_people_apart(settings: Generate) -> None:
    sights = _person(0, ("photo", A), ("photo", A), ("oil", _near(A, 0.5))) + _person(1, ("photo", B), ("photo", B))
    verdicts = judge(sights, _settings(settings), "photo")
    metrics = summarise(sights, verdicts)
    assert metrics["same_person"] == pytest.approx((4 + 1 / np.sqrt(1.25)) / 5)
    assert metrics["other_person"] == pytest.approx(0)
    assert (metrics["kept"], metrics["images"], metrics["people"], metrics["faces_found"]) == (1, 5, 2, 1)
    assert metrics["styles"]["oil"]["kept"] == 1  # type: ignore[index]


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
