"""Numbers for own photos that suit the tiny world's detector: it sees one face in every bright picture."""

from pathlib import Path

import pytest

from lookahead.config import Photos


@pytest.fixture
def photos(prompts_file: Path) -> Photos:
    """Pictures from 16 pixels on, two of a person at least."""
    return Photos(
        prompts=str(prompts_file),
        shard=4,
        smallest_face=16,
        most_pixels=2_000_000,
        aspect=4.0,
        margin=1.5,
        second_face=0.25,
        keep_photo=-1.0,
        keep_images=2,
    )
