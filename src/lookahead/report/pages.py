"""What every report is made of: the page's frame, numbers as people read them, pictures inside the page."""

from __future__ import annotations

import base64
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from lookahead.artifacts import atomic


def save_page(template: str, path: Path, content: dict[str, object]) -> None:
    """Render `templates/<template>`, which extends the frame `page.html.j2`, into one HTML file.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    page = _environment().get_template(template).render(content)
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lookahead.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(number=number, signed=signed, plain=plain, short=short, no_difference=no_difference)
    environment.filters["shown"] = shown
    return environment


def no_difference(low: float | None, high: float | None) -> bool:
    """Whether the interval of a difference holds 0 (or there is none), so that no difference is shown."""
    return low is None or high is None or low <= 0 <= high


def short(value: float | None) -> str:
    """A number as it stands below a picture."""
    return _formatted(value, "z.2f")


def plain(value: float | None) -> str:
    """A number as most tables show it."""
    return _formatted(value, "z.3f")


def number(value: float | None) -> str:
    """A number as the table of all numbers shows it."""
    return _formatted(value, "z.4f")


def signed(value: float | None) -> str:
    """A difference with its sign."""
    return _formatted(value, "+z.3f")


def shown(value: object) -> str:
    """A parameter's value; one that was not drawn is empty."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"
    return "" if value is None else str(value)


def _formatted(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form).replace("-", "−")


def inline(data: bytes, kind: str) -> str:
    """A picture's bytes as a data URI; `kind` is "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def inline_png(path: Path) -> str:
    """A PNG file as a data URI."""
    return inline(path.read_bytes(), "png")
