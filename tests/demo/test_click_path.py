"""The page in headless Chromium, as a visitor uses it, with the miniature; nothing may be asked of other machines."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lookahead.config import read_params
from lookahead.models.adapter import ADAPTER_FILE
from tests.launcher import COMMAND, await_answer, free_port
from tests.modules import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
BROWSER = shutil.which("chromium")
PATIENCE = 600_000  # milliseconds: the machine may be busy


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """`lookahead demo`, with the trained encoder, or with a copy of the untuned one in its place."""
    pytest.importorskip("gradio", reason="`make demo` installs Gradio")
    encoder = ROOT / "runs/miniature/train/lookahead/encoder"
    if not encoder.is_dir():
        encoder = tmp_path / "encoder"
        encoder.mkdir()
        adapter = read_params(ROOT / "params.yaml").worlds["miniature"].checkpoints.adapter
        shutil.copy(ROOT / adapter.source / adapter.subfolder / adapter.weight_name, encoder / ADAPTER_FILE)
    port = free_port()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [COMMAND, "demo", "--world", "miniature", "--encoder", str(encoder)]
    page = subprocess.Popen([*command, "--port", str(port)], cwd=ROOT, env={**os.environ, "TMPDIR": str(scratch)})
    url = f"http://127.0.0.1:{port}/"
    await_answer(url, page)
    yield url
    page.terminate()
    page.wait(300)
    assert not list(scratch.glob("lookahead-demo-*"))  # portraits do not stay behind


@pytest.fixture
def visitor(address: str) -> Iterator[tuple[Any, list[str]]]:
    """The open page, and what it asked of anybody but this machine."""
    if BROWSER is None:
        pytest.skip("no chromium on PATH: apt-get install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="`make demo` installs Playwright")
    strange: list[str] = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1250})
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: strange.append(request.url))
        page.goto(address)
        yield page, strange
        browser.close()


def foreign(urls: list[str], page: Any) -> list[str]:
    own = page.url.rstrip("/")
    return [url for url in urls if not url.startswith((own, own.replace("http", "ws"), "data:", "blob:"))]


def test_the_click_path(visitor, tmp_path):
    page, urls = visitor
    # Without a portrait: plain words.
    page.get_by_role("button", name="Draw").click()
    page.get_by_text("there is no portrait").wait_for()
    # An example portrait: its face is found.
    page.locator(".gallery-item, [data-testid='gallery-item'], .gallery img").first.click()
    page.get_by_text("One face is found").wait_for()
    # A style: it is in the prompt.
    page.get_by_label("Style").click()
    page.get_by_role("option", name="comic").click()
    page.wait_for_function(
        "[...document.querySelectorAll('textarea')].some(t => t.value.startsWith('a comic drawing'))"
    )
    page.get_by_label("number input for Pictures").fill("2")
    page.get_by_label("Few steps").check()
    page.get_by_role("button", name="Draw").click()
    page.get_by_text(re.compile(r"Tuned with lookahead: identity -?\d\.\d\d, prompt -?\d\.\d\d")).wait_for()
    captions = page.get_by_text(re.compile(r"^(identity -?\d|no face found).*, seed \d$"))
    assert captions.count() == 4
    page.wait_for_timeout(1000)  # for pictures to be painted
    page.screenshot(path=tmp_path / "demo.png")
    page.get_by_label("Few steps").uncheck()
    # Stop: at the next step, and the page goes on to answer.
    page.get_by_role("button", name="Draw").click()
    page.get_by_text("Drawing.").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    page.get_by_label("Few steps").check()
    page.get_by_role("button", name="Draw").click()
    page.get_by_text("Tuned with lookahead: identity").wait_for()
    assert len(urls) > 10 and not foreign(urls, page)
