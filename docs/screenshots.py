"""The pictures of MLflow's pages in docs/, of the runs that are here: `make screenshots`; needs Chromium."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from lookahead.config import read_params
from lookahead.mlflow_pages import headline_page
from lookahead.tracking import connect
from tests.launcher import await_answer, free_port

DOCS = Path("docs")
CLOSE = "button[aria-label='Close']"  # of the assistant's panel, which takes a third of the window


def settle(page: Page, seconds: float = 8.0) -> None:
    """MLflow's pages poll for ever, so there is no event to wait for."""
    page.wait_for_timeout(1000 * seconds)


def save(page: Page, name: str) -> None:
    page.screenshot(path=DOCS / f"{name}.png")


def shoot(page: Page, address: str) -> None:
    """The table of reproductions, and the newest one's page."""
    client, experiment = connect(read_params().tracking)
    page.goto(f"{address}/{headline_page(experiment)}", wait_until="domcontentloaded")
    settle(page)
    if page.locator(CLOSE).count():
        page.locator(CLOSE).first.click()
        settle(page, 2)
    save(page, "mlflow-table")
    (newest,) = client.search_runs([experiment], "tags.`lookahead.kind` = 'reproduction'", max_results=1)
    page.goto(f"{address}/#/experiments/{experiment}/runs/{newest.info.run_id}?workflowType=machine_learning")
    settle(page)
    page.get_by_text("Show more").first.click()
    settle(page, 3)
    save(page, "mlflow-reproduction")


def main() -> None:
    """Serve MLflow's pages, take the pictures, and end."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or sys.exit("install Chromium first")
    port = free_port()
    command = [str(Path(sys.executable).with_name("lookahead")), "ui", "--port", str(port)]
    server = subprocess.Popen(command, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        await_answer(address, server)
        with sync_playwright() as playwright:
            opened = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
            page = opened.new_page(viewport={"width": 1280, "height": 800})
            page.set_default_timeout(60_000)
            shoot(page, address)
    finally:
        os.killpg(server.pid, signal.SIGTERM)


if __name__ == "__main__":
    main()
