"""Self-contained HTML pages: templates, and pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from lookahead.artifacts import atomic
from lookahead.report.album import opened
from lookahead.report.formats import number, parameter
from lookahead.report.grids import thumbnail

_QUALITY = 92  # of the JPEG pictures inside a page


def save_page(template: str, path: Path, content: Mapping[str, object]) -> None:
    """Render `templates/<template>`, which extends the frame `page.html.j2`, into one HTML file.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("lookahead.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=number, parameter=parameter)
    page = environment.get_template(template).render(content)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def inline_file(path: Path) -> str:
    """A PNG or JPEG file as a data URI."""
    return _inline(path.read_bytes(), "png" if path.suffix == ".png" else "jpeg")


def inline_thumbnail(image: bytes) -> str:
    """A picture of an album as a small JPEG in a data URI."""
    buffer = io.BytesIO()
    thumbnail(opened(image)).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return _inline(buffer.getvalue(), "jpeg")


def _inline(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
