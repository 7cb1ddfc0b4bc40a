"""The committed face packs, opened by insightface, on people never trained on, and the pieces of their training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lookahead.models.recogniser import open_recogniser
from lookahead.world import open_faces, recogniser_onnx
from miniature.detector import ANCHORS, OUTPUTS, STRIDES, Detector, centres, rows_of, stride_loss
from miniature.faces_pool import draw_faces
from miniature.judge import embed_at, rank_one, to_bgr
from miniature.recognisers import EMBEDDING, KINDS, RecogniserNetwork, margin_loss
from miniature.renderer import draw_identities, faceless
from miniature.words import SCENES, STYLES

PACKS = Path(__file__).parents[2] / "models" / "miniature" / "faces" / "models"
SIDE = 64  # pixels
FACES = 150
PEOPLE = 200  # in the gallery of the acceptance
NEW = 777_000  # a seed that no training uses


@dataclass(frozen=True)
class Finds:
    """What the detector says of FACES off-centre faces in all styles, and of as many empty scenes."""

    missed: int
    false: int
    error: Tensor  # (found,), of the five landmarks, as a share of the face's width


@pytest.fixture(scope="module")
def finds() -> Finds:
    detector = open_faces(str(PACKS / "report"), SIDE).models["detection"]
    generator = torch.Generator().manual_seed(NEW)
    styles = torch.arange(FACES) % len(STYLES)
    wide = draw_faces(draw_identities(FACES, generator), styles, generator, "wide")
    errors = []
    for picture, marks, box in zip(to_bgr(wide.pixels.float() / 127.5 - 1), wide.landmarks, wide.boxes, strict=True):
        boxes, points = detector.detect(picture, max_num=1, metric="max")
        if len(boxes):
            errors.append((torch.from_numpy(points[0]) - marks).norm(dim=1).mean() / (box[2] - box[0]))
    empty = faceless(torch.arange(FACES) // len(STYLES) % len(SCENES), styles, generator)
    false = sum(len(detector.detect(picture)[0]) > 0 for picture in to_bgr(empty))
    return Finds(FACES - len(errors), false, torch.stack(errors))


@pytest.fixture(scope="module")
def pictures() -> dict[str, tuple[Tensor, Tensor]]:
    """Pixels and landmarks of the same PEOPLE: a gallery of photos, other photos, drawings in every style."""
    generator = torch.Generator().manual_seed(NEW + 1)
    people, photo = draw_identities(PEOPLE, generator), torch.zeros(PEOPLE, dtype=torch.int64)
    drawing = 1 + torch.arange(PEOPLE) % (len(STYLES) - 1)
    drawn = {
        name: draw_faces(people, style, generator, "portrait")
        for name, style in (("gallery", photo), ("photo", photo), ("drawing", drawing))
    }
    return {name: (faces.pixels.float() / 127.5 - 1, faces.landmarks) for name, faces in drawn.items()}


def test_off_centre_faces_are_found(finds: Finds) -> None:
    assert finds.missed <= 0.01 * FACES


def test_empty_scenes_are_empty(finds: Finds) -> None:
    assert finds.false <= 0.02 * FACES


def test_landmarks_lie_within_the_acceptance(finds: Finds) -> None:
    assert finds.error.mean() <= 0.04


def test_landmarks_are_near(finds: Finds) -> None:
    assert finds.error.mean() <= 0.06  # recognisers train with landmarks displaced by about as much


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


def test_the_loss_recogniser_is_differentiable_and_agrees_with_insightface() -> None:
    path = recogniser_onnx(str(PACKS / "loss"))
    crops = torch.randint(256, (4, 112, 112, 3), generator=torch.Generator().manual_seed(1)).byte()
    recogniser: Any = open_faces(str(PACKS / "loss"), SIDE).models["recognition"]
    reference = recogniser.get_feat([crop.flip(2).contiguous().numpy() for crop in crops])  # it takes blue first
    pixels = (crops.permute(0, 3, 1, 2).float() / 127.5 - 1).requires_grad_()
    embeddings = open_recogniser(path)(pixels)
    assert torch.allclose(embeddings, F.normalize(torch.from_numpy(reference), dim=1), atol=1e-4)
    embeddings[:, 0].sum().backward()
    assert pixels.grad is not None and pixels.grad.abs().sum() > 0


def test_recognisers_differ_and_report_learns_from_labels_alone() -> None:
    assert len({(kind.widths, kind.stem, kind.depth) for kind in KINDS.values()}) == len(KINDS)
    assert len({kind.people for kind in KINDS.values()}) == len(KINDS)
    assert not KINDS["report"].knows_traits
    assert RecogniserNetwork(KINDS["report"]).eval()(torch.zeros(2, 3, 112, 112)).shape == (2, EMBEDDING)


def test_detector_answers_two_anchors_a_cell_for_each_stride() -> None:
    answers = Detector(4).eval()(torch.zeros(2, 3, SIDE, SIDE))
    for answer, stride in zip(answers, STRIDES, strict=True):
        assert rows_of(answer).shape == (2, (SIDE // stride) ** 2 * ANCHORS, OUTPUTS)
    assert centres(SIDE, 16)[:3].tolist() == [[0, 0], [0, 0], [16, 0]]


def test_a_right_answer_costs_the_detector_nothing_and_a_shifted_one_something() -> None:
    box, marks = torch.tensor([[16.0, 16.0, 48.0, 48.0]]), 32 + 4 * torch.arange(10.0).reshape(1, 5, 2) - 20
    anchors = centres(SIDE, 16)
    own = (anchors - 32).abs().amax(1) / 16 <= 0.75
    rows = torch.zeros(1, len(anchors), OUTPUTS)
    rows[0, :, 0] = torch.where(own, 50.0, -50.0)
    rows[0, :, 1:5] = torch.cat([anchors - box[:, :2], box[:, 2:] - anchors], 1) / 16
    rows[0, :, 5:] = ((marks - anchors[:, None]) / 16).flatten(1)
    assert stride_loss(rows, box, marks, 16, (0.0, 64.0), SIDE) == pytest.approx(0, abs=1e-5)
    assert stride_loss(rows, box, marks + 2, 16, (0.0, 64.0), SIDE) > 0.1


def test_a_face_of_another_stride_s_size_is_a_negative() -> None:
    boxes, marks = torch.tensor([[10.0, 10.0, 54.0, 54.0], [16.0, 16.0, 48.0, 48.0]]), torch.full((2, 5, 2), 32.0)
    anchors, sizes = centres(SIDE, 16), (40.0, 64.0)  # this stride answers for the first face alone
    own = (anchors - 32).abs().amax(1) / 16 <= 0.75
    rows = torch.zeros(2, len(anchors), OUTPUTS)
    rows[0, :, 0], rows[1, :, 0] = torch.where(own, 50.0, -50.0), -50.0
    silent = stride_loss(rows, boxes, marks, 16, sizes, SIDE)
    rows[1, own, 0] = 50.0
    assert stride_loss(rows, boxes, marks, 16, sizes, SIDE) > silent + 10


def test_the_margin_makes_the_same_match_harder() -> None:
    one = torch.randn(6, EMBEDDING, generator=torch.Generator().manual_seed(2))
    assert margin_loss(one, one, 0.0) < margin_loss(one, one, 0.25)
    assert margin_loss(one, one, 0.25) < margin_loss(one, one.roll(1, 0), 0.25)
