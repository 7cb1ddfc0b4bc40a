"""The committed face packs and scorer on people never trained on, and the pieces of their training."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lookahead.world import open_faces
from miniature.data import draw_faces, to_pixels
from miniature.evaluator import embed_at, measure_detector, rank_one
from miniature.faces import EMBEDDING, KINDS, OUTPUTS, STRIDES, centres, margin_loss, stride_loss
from miniature.scorer import augment, measure_scorer, true_captions
from miniature.training import blur, jitter, move
from miniature.vocabulary import STYLES, draw_identities
from tests.modules import ROOT

HOME = ROOT / "models" / "miniature"
PACKS = HOME / "faces" / "models"
SIDE = 64  # pixels
PEOPLE = 200  # in the gallery of the acceptance
NEW = 777_000  # a seed that no training uses


@pytest.mark.slow
def test_the_detector_finds_off_centre_faces_and_their_landmarks_and_none_in_empty_scenes() -> None:
    figures = measure_detector(PACKS / "report", SIDE, pictures=150, seed=NEW)
    assert figures["detector_found"] >= 0.99 and figures["detector_false"] <= 0.02
    assert figures["detector_landmark_error"] <= 0.04


@pytest.fixture(scope="module")
def pictures() -> dict[str, tuple[Tensor, Tensor]]:
    """Pixels and landmarks of the same PEOPLE: a gallery of photos, other photos, drawings in every style."""
    generator = torch.Generator().manual_seed(NEW + 1)
    people, photo = draw_identities(PEOPLE, generator), torch.zeros(PEOPLE, dtype=torch.int64)
    styles = {"gallery": photo, "photo": photo, "drawing": 1 + torch.arange(PEOPLE) % (len(STYLES) - 1)}
    drawn = {name: draw_faces(people, style, generator, "portrait") for name, style in styles.items()}
    return {name: (to_pixels(faces.pixels), faces.landmarks) for name, faces in drawn.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_people_are_recognised_in_photos_and_drawings(name: str, pictures: dict[str, tuple[Tensor, Tensor]]) -> None:
    recogniser: Any = open_faces(str(PACKS / name), SIDE).models["recognition"]
    seen = {which: embed_at(recogniser, *shown) for which, shown in pictures.items()}
    answer = torch.arange(PEOPLE)
    assert rank_one(seen["photo"], seen["gallery"], answer) >= 0.97
    assert rank_one(seen["drawing"], seen["gallery"], answer) >= 0.75


@pytest.mark.parametrize("name", KINDS)
def test_every_pack_opens_with_five_landmarks_and_insightface_s_normalisation(name: str) -> None:
    models = open_faces(str(PACKS / name), SIDE).models
    assert models["detection"].use_kps and models["detection"]._feat_stride_fpn == list(STRIDES)
    assert (models["recognition"].input_mean, models["recognition"].input_std) == (127.5, 127.5)
    assert all(path.stat().st_size <= 1_250_000 for path in (PACKS / name).glob("*.onnx"))
    others = [kind for other, kind in KINDS.items() if other != name]
    assert KINDS[name].people not in [kind.people for kind in others], "each learns from other people"


def right_rows(anchors: Tensor, boxes: Tensor, landmarks: Tensor) -> Tensor:
    """What a perfect detector says at stride 16 about faces around (32, 32)."""
    own, rows = (anchors - 32).abs().amax(1) / 16 <= 0.75, torch.zeros(len(boxes), len(anchors), OUTPUTS)
    rows[..., 0] = torch.where(own, 50.0, -50.0)
    rows[..., 1:3], rows[..., 3:5] = (anchors - boxes[:, None, :2]) / 16, (boxes[:, None, 2:] - anchors) / 16
    rows[..., 5:] = ((landmarks[:, None] - anchors[:, None]) / 16).flatten(2)
    return rows


def test_a_right_answer_costs_the_detector_nothing_a_shifted_one_or_another_stride_s_face_something() -> None:
    boxes, marks = torch.tensor([[16.0, 16.0, 48.0, 48.0]]), 32 + 4 * torch.arange(10.0).reshape(1, 5, 2) - 20
    rows = right_rows(centres(SIDE, 16), boxes, marks)
    assert stride_loss(rows, boxes, marks, 16, (0.0, 64.0), SIDE) == pytest.approx(0, abs=1e-5)
    assert stride_loss(rows, boxes, marks + 2, 16, (0.0, 64.0), SIDE) > 0.1
    assert stride_loss(rows, boxes, marks, 16, (40.0, 64.0), SIDE) > 10  # a face of 32 pixels is a negative here


def test_the_margin_makes_the_same_match_harder() -> None:
    one = torch.randn(6, EMBEDDING, generator=torch.Generator().manual_seed(2))
    assert margin_loss(one, one, 0.0) < margin_loss(one, one, 0.25) < margin_loss(one, one.roll(1, 0), 0.25)


@pytest.mark.slow
def test_style_and_scene_are_recognised_zero_shot_also_on_degraded_pictures() -> None:
    assert sum(path.stat().st_size for path in (HOME / "clip").iterdir()) <= 5_000_000
    figures = measure_scorer(HOME / "clip", people=6, seed=2024)  # 216 pictures
    assert min(figures["style"], figures["scene"]) >= 0.95
    assert min(figures["style_degraded"], figures["scene_degraded"]) >= 0.90


def test_a_person_is_true_of_everybody_and_a_name_of_one() -> None:
    style, scene = torch.tensor([0, 0, 0]), torch.tensor([1, 1, 2])
    true = true_captions(style, scene, ["anna berg", "bela cole", "anna berg"], ["anna berg", "a person", ""])
    assert true.tolist() == [[True, True, False], [False, True, False], [False, False, True]]


def test_augmented_pictures_stay_pictures_and_depend_on_the_generator_alone() -> None:
    pixels, grey, even = torch.rand(5, 3, 64, 64) * 2 - 1, torch.zeros(50, 3, 8, 8), torch.full((4, 3, 64, 64), 0.25)
    first, again = (augment(pixels, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again) and first.shape == pixels.shape and first.abs().max() <= 1
    assert jitter(grey, torch.Generator().manual_seed(0)).abs().max() <= 0.08
    for change in (move, blur):
        assert torch.allclose(change(even, torch.Generator().manual_seed(0)), even, atol=1e-6)
