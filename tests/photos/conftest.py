"""Numbers for own photos that suit the tiny world's detector: it sees one face in every bright picture."""

from pathlib import Path

import pytest

from lookahead.config import Photos


@pytest.fixture
def photos(prompts_file: Path) -> Photos:
    """Pictures from 16 pixels on, two of a person at least."""
    return Photos(
        prompts=str(prompts_file),
        shard_size=4,
        min_face_size=16,
        max_pixels=2_000_000,
        margin=1.5,
        max_second_face=0.25,
        min_photo_similarity=-1.0,
        min_images=2,
    )
