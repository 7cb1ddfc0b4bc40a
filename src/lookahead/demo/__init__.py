"""A page to try the encoder with, on 127.0.0.1, offline: portraits and prompts in, pictures and their scores out."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path

from lookahead.config import World
from lookahead.dataset.prompts import read_prompts
from lookahead.errors import InputError

EXAMPLES = 8  # portraits to click on
MAX_BYTES = "50mb"  # of an upload, in Gradio's words


def serve(world: World, encoder: Path | None, port: int) -> None:
    """Serve the page until Ctrl-C; uploads and pictures are removed at the end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that the folder is removed then, too
    with tempfile.TemporaryDirectory(prefix="lookahead-demo-") as folder:
        # Gradio reads these when it is imported.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
        try:
            from lookahead.demo.page import build
        except ModuleNotFoundError as error:
            raise InputError(f"the demo page needs Gradio ({error}): `make demo` installs it") from None
        from lookahead.demo.studio import Studio

        examples = sorted(Path(world.evaluation().splits.test).glob("*/0.jpg"))[:EXAMPLES]
        page = build(Studio(world, encoder), read_prompts(world.generate.prompts), examples)
        try:
            options = {"share": False, "quiet": True, "footer_links": [], "run_history": False}
            page.launch(server_name="127.0.0.1", server_port=port, max_file_size=MAX_BYTES, **options)
        finally:
            page.close(verbose=False)
