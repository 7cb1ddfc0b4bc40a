"""What the page does, without a browser: looking, drawing, scoring, stopping, and plain words."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from diffusers import UNet2DConditionModel
from PIL import Image

from lookahead.config import World
from lookahead.demo.studio import TUNED, UNTUNED, Drawn, Options, Stopped, Studio
from lookahead.errors import InputError
from lookahead.pipeline import LookaheadPipeline
from tests.tiny import alive

OPTIONS = Options("a photo of a person in the snow", 2, 5, 0.6, 1.0, True, False)
FRAME = (212, 85, 42)
DARK = Image.new("RGB", (64, 64))


@pytest.fixture(scope="module")
def studio(world: World, encoder: Path) -> Studio:
    return Studio(world, encoder)


def drawn(studio: Studio, photo: Image.Image | None, options: Options = OPTIONS) -> dict[str, list[Drawn]]:
    return dict(studio.draw(photo, options, Event(), lambda *_: None, [].append))


def differ(one: Image.Image, other: Image.Image) -> int:
    return int(abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


def test_it_draws_what_the_pipeline_draws(studio, world, encoder, photos):
    seen: list[tuple[str, int, int]] = []
    doubts: list[str] = []
    got = dict(studio.draw(photos[0], OPTIONS, Event(), lambda *step: seen.append(step), doubts.append))
    assert list(got) == [UNTUNED, TUNED] and studio.has_kv
    assert len(doubts) == 1 and "portrait 1 is unlike" in doubts[0]  # random weights rebuild nobody
    assert seen == [(name, step, 2) for name in (UNTUNED, TUNED) for step in (1, 2)]
    for name, folder in ((UNTUNED, None), (TUNED, encoder)):
        pipe = LookaheadPipeline(world.checkpoints, world.personalize, folder)
        alone = pipe(photos[0], OPTIONS.prompt, seed=5, num_images_per_prompt=2, adapter_scale=0.6)
        assert [one.seed for one in got[name]] == [5, 6]
        assert all(differ(one.picture, other) == 0 for one, other in zip(got[name], alone, strict=True))
    assert all(-1 <= one.prompt <= 1 for one in got[TUNED])


def test_one_pipeline_draws_for_both_and_a_second_drawing_is_the_first(world, encoder, photos):
    before = alive(UNet2DConditionModel)
    studio = Studio(world, encoder)
    first, second = (drawn(studio, photos[0]) for _ in range(2))
    assert len(alive(UNet2DConditionModel) - before) == 1
    for name in (UNTUNED, TUNED):
        assert all(differ(a.picture, b.picture) == 0 for a, b in zip(first[name], second[name], strict=True))


CONTROLS = [{"guidance": 2.0}, {"adapter_scale": 0.0}, {"fast": True}, {"seed": 9}, {"kv": False}]


@pytest.mark.parametrize("change", CONTROLS, ids=str)
def test_every_control_changes_the_pictures_and_the_kv_switch_the_tuned_ones_only(change, studio, photos):
    before, after = drawn(studio, photos[0]), drawn(studio, photos[0], replace(OPTIONS, **change))
    changes = {name: differ(before[name][0].picture, after[name][0].picture) for name in (UNTUNED, TUNED)}
    assert changes[TUNED] > 1
    assert changes[UNTUNED] == 0 if "kv" in change else changes[UNTUNED] > 1


def test_without_a_trained_encoder_the_untuned_one_draws_alone(world, photos):
    studio = Studio(world, None)
    assert list(drawn(studio, photos[0])) == [UNTUNED] and not studio.has_kv


def test_the_portrait_itself_scores_one(studio, photos):
    (same,) = studio._score(photos[0], [photos[0]], OPTIONS)
    assert same.identity == pytest.approx(1.0) and same.caption == f"identity 1.00, prompt {same.prompt:.2f}, seed 5"
    (dark,) = studio._score(photos[0], [DARK], OPTIONS)
    assert dark.identity is None and dark.caption.startswith("no face found, prompt ")


def test_stop_ends_it_at_the_next_step(studio, photos):
    stop, seen = Event(), []

    def press(who: str, step: int, steps: int) -> None:
        seen.append((who, step))
        stop.set()

    with pytest.raises(Stopped):
        list(studio.draw(photos[0], OPTIONS, stop, press, [].append))
    assert seen == [(UNTUNED, 1)]
    assert len(drawn(studio, photos[0])) == 2  # the next one is not stopped, nor kept waiting


REFUSED = {"no portrait": (None, "a person"), "no face is found": (DARK, "a person"), "prompt is empty": (DARK, " ")}


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_drawn_is_said(said, studio):
    portrait, prompt = REFUSED[said]
    with pytest.raises(InputError, match=said):
        drawn(studio, portrait, replace(OPTIONS, prompt=prompt))


def test_looking_frames_the_face_where_its_box_is_and_says_whether_it_will_do(studio, photos):
    shown, said = studio.look(photos[0])
    left, top, right, bottom = studio._check.boxes(photos[0])[0, :4].round()
    assert said.startswith("One face is found")
    rows, columns = np.nonzero((np.asarray(shown) == FRAME).all(axis=-1))
    assert [columns.min(), rows.min(), columns.max(), rows.max()] == pytest.approx([left, top, right, bottom], abs=1)
    dark, said = studio.look(DARK)
    assert "no face is found" in said and np.array_equal(np.asarray(dark), np.asarray(DARK))


def test_without_gradio_one_message_says_how_to_get_it():
    code = (
        "import sys; sys.modules['gradio'] = None\n"
        "from lookahead.demo import serve\n"
        "from lookahead.errors import InputError\n"
        "try: serve(None, None, 0)\n"
        "except InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "needs Gradio" in done.stdout and "make demo" in done.stdout, done.stderr
