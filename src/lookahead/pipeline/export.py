"""An encoder for other people's programs: the standard IP-Adapter file, and a model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lookahead.artifacts import atomic, read_json
from lookahead.config import Checkpoints
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.models.kv_encoder import KV_FILE
from lookahead.pipeline.pipeline import LookaheadPipeline

CARD = "README.md"
_ROWS = {"adapter": "untuned adapter", "noise_only": "tuned, noise loss only", "tuned": "tuned with lookahead"}


def export(pipe: LookaheadPipeline, out: Path, intervals: Path | None) -> None:
    """Write the encoder, its settings and a model card with the evaluation's `intervals.json`, where there is one.

    Raises:
        InputError: `out` is a file, or a file cannot be written or read.
    """
    if out.is_file():
        raise InputError(f"{out} is a file: choose a folder")
    pipe.save_pretrained(out)
    measured = read_json(intervals) if intervals and intervals.is_file() and pipe.encoder is not None else {}
    with atomic(out / CARD) as temporary:
        temporary.write_text(card(pipe.checkpoints, pipe.has_kv, pipe.encoder is not None, measured), encoding="utf-8")


def card(checkpoints: Checkpoints, has_kv: bool, tuned: bool, metrics: Mapping[str, Any]) -> str:
    """The model card in Markdown, with a row for each evaluated encoder."""
    loader = PackageLoader("lookahead.pipeline")
    environment = Environment(loader=loader, undefined=StrictUndefined, autoescape=False, trim_blocks=True)  # Markdown
    rows = [(label, metrics[method]) for method, label in _ROWS.items() if method in metrics]
    return environment.get_template("card.md.j2").render(
        checkpoints=checkpoints, adapter=ADAPTER_FILE, kv=KV_FILE if has_kv else None, tuned=tuned, rows=rows
    )
