"""The converted checkpoint, opened once for all comparisons."""

import pytest

from tests.official.checkpoint import Ours, open_ours


@pytest.fixture(scope="package")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Ours:
    """A checkpoint in the authors' layout, written, converted as the command does it, and opened."""
    return open_ours(tmp_path_factory.mktemp("official"))
