"""The page's answers, called as Gradio calls them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lookahead.config import World
from lookahead.demo.studio import Studio

gr = pytest.importorskip("gradio", reason="`make demo` installs Gradio")
ANNA, BELA = SimpleNamespace(session_hash="anna"), SimpleNamespace(session_hash="bela")


@pytest.fixture(scope="module")
def page(world: World, encoder: Path) -> Any:
    from lookahead.demo.page import Page

    return Page(Studio(world, encoder))


def answers(page: Any, who: Any, photo: Path | None) -> list[Any]:
    return list(
        page.draw(
            photo and str(photo), "a photo of a person", 1, 0.0, 1.0, 1.0, False, True, who, lambda *_, **__: None
        )
    )


def test_both_encoders_draw_one_after_the_other(page, portraits):
    page.begin(ANNA)
    first, untuned, tuned = answers(page, ANNA, portraits[0])
    assert first == [[], [], "Drawing."]
    assert [len(gallery) for gallery in untuned[:2]] == [1, 0] and [len(gallery) for gallery in tuned[:2]] == [1, 1]
    assert "Untuned adapter: identity" in tuned[2] and "Tuned with lookahead: identity" in tuned[2]


def test_a_drawing_that_still_waits_is_stopped_and_nobody_elses(page, portraits):
    page.begin(ANNA)
    page.begin(BELA)
    assert page.stop(ANNA) == "Stopping."
    assert answers(page, ANNA, portraits[0])[-1] == [[], [], "Stopped."]
    assert "Tuned" in answers(page, BELA, portraits[0])[-1][2]
    page.begin(ANNA)
    assert "Tuned" in answers(page, ANNA, portraits[0])[-1][2]


def test_what_cannot_be_drawn_is_a_message(page):
    page.begin(ANNA)
    with pytest.raises(gr.Error, match="no portrait"):
        answers(page, ANNA, None)
