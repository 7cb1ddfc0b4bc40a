"""The measurement on the miniature's real parts: what must be better is, and what cannot be right is wrong."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from insightface.app import FaceAnalysis
from PIL import Image, ImageDraw
from torch.nn import functional as F

from lookahead.config import read_params, with_overrides
from lookahead.evaluation.cells import Cell
from lookahead.evaluation.contrasts import summary
from lookahead.evaluation.evaluate import photo_scale
from lookahead.evaluation.evaluator import Evaluator, open_evaluator
from lookahead.evaluation.pictures import read_pictures
from lookahead.evaluation.scores import embed_pictures, face_scores, score
from lookahead.models.recogniser import align, open_recogniser
from lookahead.portraits import read_people, read_photo
from lookahead.world import open_faces, quiet_alignment, recogniser_onnx

WORLD = read_params().worlds["miniature"]
EVALUATE = WORLD.evaluation()
VALIDATION = Path(EVALUATE.splits.validation)
PACKS = ("loss", "select", "report")


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    """Eight people of the validation portraits, each as a photo and in every style."""
    changes = {"split": "validation", "people": 8, "photo_prompts": 1, "num_inference_steps": 6}
    return open_evaluator(WORLD.checkpoints, with_overrides(EVALUATE, changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the pictures lie."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def table(evaluator: Evaluator, folder: Path) -> pd.DataFrame:
    """The untuned adapter's pictures, scored."""
    cell = Cell("adapter", None, -1, "full", evaluator.settings.sampling)
    return evaluator.run([cell], folder, folder / "cache")


@pytest.fixture(scope="module")
def pictures(table: pd.DataFrame, folder: Path) -> list[Image.Image]:
    """Those pictures."""
    return list(read_pictures(folder / "adapter" / "full" / "-1"))


def test_a_photo_of_the_person_beats_the_adapter_and_the_adapter_beats_a_stranger(
    evaluator: Evaluator, table: pd.DataFrame
) -> None:
    scorers = evaluator.scorers
    others = [[face["report"] for face in faces] for faces in scorers.others]
    photos = photo_scale([face["report"] for face in scorers.references], others)
    scale = summary(photos, ("same_person", "stranger")).set_index("metric")
    (drawn,) = summary(table, ("identity",)).itertuples()
    assert scale["high"]["stranger"] < drawn.low < drawn.high < scale["low"]["same_person"]


def test_no_face_is_found_in_the_dark_and_where_the_heads_are_blacked_out(
    evaluator: Evaluator, table: pd.DataFrame, pictures: list[Image.Image]
) -> None:
    """Blacked out from the upper edge to the lower one: the miniature's detector finds the outline of a head."""
    finder = open_faces(evaluator.checkpoints.faces.report, evaluator.checkpoints.faces.detection_size)
    covered = [Image.new("RGB", (64, 64)), *(picture.copy() for picture in pictures)]
    for picture in covered:
        for face in finder.get(np.asarray(picture)[:, :, ::-1].copy()):
            left, _, right, _ = face.bbox
            margin = 0.2 * (right - left)
            ImageDraw.Draw(picture).rectangle((left - margin, 0, right + margin, picture.height), "black")
    people = [0, *(shot.person for shot in evaluator.plan.shots)]
    rows = [face_scores(p, person, evaluator.scorers) for p, person in zip(covered, people, strict=True)]
    assert {row["detected"] for row in rows} == {row["identity"] for row in rows} == {0.0}
    assert table["detected"].mean() > 0.9


def test_shuffled_prompts_are_right_by_chance_only(
    evaluator: Evaluator, table: pd.DataFrame, pictures: list[Image.Image]
) -> None:
    """Chance is how often two of the shots ask for the same: about 1 in 48 for style and scene, less for all."""
    plan, texts = evaluator.plan, evaluator.scorers.texts
    embeddings = embed_pictures(evaluator.scorers.scorer, pictures)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(len(plan.shots), generator=generator).tolist() for _ in range(100)]
    asked = [[plan.shots[number].asked for number in order] for order in orders]
    shuffled = pd.concat([pd.DataFrame(score(embeddings, texts, plan, some)) for some in asked])
    assert shuffled["prompt"].mean() < 0.05 < 0.6 < table["prompt"].mean()
    for kind, words in plan.words.items():
        assert shuffled[f"{kind}_right"].mean() == pytest.approx(1 / len(words), abs=0.06)
        assert table[f"{kind}_right"].mean() > 0.75


@pytest.mark.parametrize("pack", PACKS)
def test_the_differentiable_recogniser_sees_what_insightface_sees(pack: str) -> None:
    """From pictures to embeddings, crops included, on 100 faces; insightface opens the pack by its name."""
    folder = Path(getattr(WORLD.checkpoints.faces, pack))  # <root>/models/<name>
    faces = FaceAnalysis(name=pack, root=str(folder.parents[1]), providers=["CPUExecutionProvider"])
    faces.prepare(ctx_id=-1, det_size=(64, 64))
    recogniser = open_recogniser(recogniser_onnx(str(folder)))
    photos = [read_photo(person.reference) for person in read_people(VALIDATION, 100)]
    with quiet_alignment():
        found = [faces.get(photo[:, :, ::-1].copy(), max_num=1)[0] for photo in photos]
    pixels = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2) / 127.5 - 1
    own = recogniser(align(pixels, torch.from_numpy(np.stack([face.kps for face in found]))))
    cosines = F.cosine_similarity(own, torch.from_numpy(np.stack([face.embedding for face in found])))
    assert len(cosines) == 100 and cosines.min() >= 0.999
