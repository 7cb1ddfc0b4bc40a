"""The code stays within its limits; those that it exceeds have to be met, and then lose their mark here."""

import pytest

from tests.sizes import sizes

EXCEEDED = {"lines in src/lookahead", "lines in tests", "files in src"}


@pytest.mark.parametrize("name", sizes())
def test_a_part_is_within_its_limit(request: pytest.FixtureRequest, name: str) -> None:
    if name in EXCEEDED:
        request.applymarker(pytest.mark.xfail(strict=True, reason="still too large"))
    size, limit = sizes()[name]
    assert size <= limit
