"""The code stays within its limits."""

import pytest

from tests.sizes import sizes


@pytest.mark.xfail(reason="until every part of the redesign is merged", strict=False)
@pytest.mark.parametrize("name", sizes())
def test_a_part_is_within_its_limit(name: str) -> None:
    size, limit = sizes()[name]
    assert size <= limit
