"""Serves the page on 127.0.0.1, offline, and removes its files at the end."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from lookahead.config import World
from lookahead.dataset.prompts import read_prompts
from lookahead.demo.studio import Studio
from lookahead.errors import InputError

_EXAMPLES = 8


def examples(world: World) -> list[Path]:
    """The first photo of some test people; none where there are none, as in a fresh `sdxl`."""
    return sorted(Path(world.evaluation().splits.test).glob("*/0.jpg"))[:_EXAMPLES]


def serve(world: World, encoder: Path | None, port: int) -> None:
    """Serve the page until Ctrl-C; uploads and pictures are removed at the end.

    Raises:
        InputError: Gradio is missing, the port is taken, or something of the world cannot be opened.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the folder is removed then, too
    with tempfile.TemporaryDirectory(prefix="lookahead-demo-") as folder:
        page = open_page(world, encoder, port, folder)
        try:
            page.block_thread()
        finally:
            page.close(verbose=False)


def open_page(world: World, encoder: Path | None, port: int, folder: str) -> Any:
    """Start to serve the page on 127.0.0.1 and return it, Gradio's; uploads and pictures go to `folder`.

    Raises:
        InputError: Gradio is missing, the port is taken, or something of the world cannot be opened.
    """
    # Gradio reads these when it is imported.
    os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    try:
        from lookahead.demo.page import build
    except ModuleNotFoundError as error:
        raise InputError(f"the demo page needs Gradio ({error}): `make demo` installs it") from None
    page = build(Studio(world, encoder), read_prompts(world.generate.prompts), examples(world))
    options = {"share": False, "quiet": True, "prevent_thread_lock": True, "footer_links": [], "run_history": False}
    try:
        page.launch(server_name="127.0.0.1", server_port=port, **options)
    except OSError as error:
        raise InputError(f"port {port} of 127.0.0.1 cannot be used ({error}): choose another by `--port`") from None
    return page
