"""The command's work: portraits that it accepts, all files or none, and what the pictures tell of themselves."""

import gc
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPVisionModelWithProjection

from lookahead.config import Checkpoints, read_params, with_overrides
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.pipeline import LookaheadPipeline, pipeline
from lookahead.pipeline.personalize import (
    GRID,
    FaceCheck,
    Request,
    find_encoder,
    personalize,
    settings_of,
    square_around,
)
from lookahead.portraits import open_picture
from tests.modules import ROOT
from tests.tiny import alive
from tests.tiny_faces import save_detector

PROMPTS = ("a photo of a person in the snow", "a comic drawing of a person on the beach")


def request_of(portraits: list[Path]) -> Request:
    return Request(tuple(portraits[:1]), PROMPTS, "an oil painting", 2, 7, False, {"adapter_scale": 0.5})


def test_a_grid_and_every_picture_with_its_origin(world, encoder, portraits, tmp_path):
    out = tmp_path / "new" / "out"
    personalize(world, encoder, request_of(portraits), out)
    assert {path.name for path in out.iterdir()} == {GRID, "00-7.png", "00-8.png", "01-7.png", "01-8.png"}
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    text = Image.open(out / "01-8.png").text
    assert text["prompt"] == PROMPTS[1] and text["seed"] == "8" and text["negative_prompt"] == "an oil painting"
    assert json.loads(text["settings"])["adapter_scale"] == 0.5 and text["encoder"] == "tuned"
    assert "torch" in text["versions"] and "generated" in text["Software"]
    assert str(tmp_path) not in str(text) and text["portraits"] == "0.jpg"
    with Image.open(out / GRID) as grid:
        assert grid.size == (3 * 64, 2 * 64)
    again = LookaheadPipeline(world.checkpoints, with_overrides(world.personalize, {"adapter_scale": 0.5}), encoder)
    with Image.open(portraits[0]) as photo, Image.open(out / "01-8.png") as ours:
        alone = np.asarray(again(photo, PROMPTS[1], "an oil painting", seed=8)[0], dtype=np.int16)
        assert abs(np.asarray(ours, dtype=np.int16) - alone).max() <= 1  # another batch size rounds otherwise


def test_what_a_small_world_does_not_know_is_drawn_after_a_warning(world, encoder, portraits, tmp_path, caplog):
    request = replace(request_of(portraits), prompts=("a photo of a person on a dragon", "a Photo, in the snow"))
    for least, count in ((0, 1), (99, 2)):
        strict = with_overrides(world, {"personalize.known.min_psnr": least})
        caplog.clear()
        personalize(strict, encoder, request, tmp_path / str(least))
        assert len(caplog.messages) == count
        assert "does not know dragon: it draws what prompts/miniature.yaml names" in caplog.messages[-1]
    assert "portrait 1 is unlike the people" in caplog.messages[0] and "--world sd15" in caplog.messages[0]


def test_an_exported_encoder_draws_by_its_own_settings_and_only_on_its_base(world, encoder, exported, tmp_path):
    assert settings_of(world, None) == settings_of(world, encoder) == world.personalize
    changed = with_overrides(world, {"personalize.num_inference_steps": 7})
    assert settings_of(changed, exported).num_inference_steps == world.personalize.num_inference_steps
    other = with_overrides(world, {"checkpoints.base": "another/base"})
    with pytest.raises(InputError, match=r"belongs to the base .*, but the world miniature has another/base"):
        settings_of(other, exported)


@pytest.mark.parametrize("name", ["file/out", "x" * 300], ids=["below a file", "too long"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_drawing(name, world, portraits, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("lookahead.pipeline.personalize.FaceCheck", None)  # nothing is opened
    with pytest.raises(InputError, match="cannot be written"):
        personalize(world, None, request_of(portraits), tmp_path / name)


def test_a_photo_whose_name_is_no_utf_8_is_drawn_from(world, portraits, tmp_path):
    photo = tmp_path / "caf\udce9.jpg"
    photo.write_bytes(portraits[0].read_bytes())
    personalize(world, None, replace(request_of(portraits), portraits=(photo,)), tmp_path / "out")
    assert Image.open(tmp_path / "out" / "00-7.png").text["portraits"] == "caf?.jpg"


def test_the_image_encoder_and_the_face_pack_are_closed_before_the_base_is_opened(
    world, encoder, portraits, tmp_path, monkeypatch
):
    """Together they would not fit into 8 GB (Stable Diffusion 1.5 in float32)."""
    before, open_base, left = alive(CLIPVisionModelWithProjection), pipeline.open_pipeline, []

    def open_pipeline(checkpoints: Checkpoints) -> object:
        left.append(alive(CLIPVisionModelWithProjection) - before)
        left.append([one for one in gc.get_objects() if type(one) is FaceCheck])
        return open_base(checkpoints)

    monkeypatch.setattr(pipeline, "open_pipeline", open_pipeline)
    personalize(world, encoder, request_of(portraits), tmp_path / "out")
    assert left == [set(), []]
    assert alive(CLIPVisionModelWithProjection) == before


def test_interrupted_it_leaves_nothing_and_a_full_folder_is_never_touched(world, portraits, tmp_path, monkeypatch):
    def interrupt(self: Image.Image, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        personalize(world, None, request_of(portraits), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(InputError, match="not empty"):
        personalize(world, None, request_of(portraits), tmp_path)
    assert (tmp_path / "holiday.jpg").read_bytes() == b"mine"


def test_the_trained_encoder_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_encoder("miniature", None) is None
    trained = Path("runs/miniature/train/lookahead/encoder")
    trained.mkdir(parents=True)
    (trained / ADAPTER_FILE).touch()
    assert find_encoder("miniature", None) == trained
    with pytest.raises(InputError, match="holds no encoder"):
        find_encoder("miniature", tmp_path)


def test_one_face_of_sufficient_size_is_accepted(tiny_world, own_world, photos):
    check = FaceCheck(tiny_world, 0.2)
    assert [check(photo, "photo").size for photo in photos] == [(64, 64)] * 3
    with pytest.raises(InputError, match=r"dark: no face is found"):
        check(Image.new("RGB", (64, 64)), "dark")
    with pytest.raises(InputError, match=r"too small \(\d+% of the picture, at least 95%\)"):
        FaceCheck(tiny_world, 0.95)(photos[0], "photo")
    save_detector(Path(own_world.faces.loss) / "detector.onnx", faces=2)
    with pytest.raises(InputError, match=r"photo: 2 faces are found; crop it"):
        FaceCheck(own_world, 0.2)(photos[0], "photo")


def test_the_miniature_accepts_its_own_portraits():
    checkpoints = read_params(ROOT / "params.yaml").worlds["miniature"].checkpoints
    faces = checkpoints.faces.model_copy(update={"loss": str(ROOT / checkpoints.faces.loss)})
    check = FaceCheck(checkpoints.model_copy(update={"faces": faces}), 0.2)
    for path in sorted((ROOT / "models/miniature/portraits/test").glob("00*/0.jpg")):
        portrait = open_picture(path)
        assert check(portrait, str(path)).size == portrait.size


@pytest.mark.parametrize(("left", "expected"), [(0, 0), (45, 25), (100, 60)])
def test_the_square_follows_the_face(left, expected):
    ramp = np.repeat(np.arange(100, dtype=np.uint8)[None, :, None], 40, axis=0).repeat(3, axis=2)
    box = np.array([left - 5, 10, left + 5, 20, 1], dtype=np.float32)
    square = square_around(Image.fromarray(ramp), box)
    assert square.size == (40, 40) and square.getpixel((0, 0)) == (expected,) * 3
