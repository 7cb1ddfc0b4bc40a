"""The tiny world's pipelines, opened once for these tests."""

import pytest

from lookahead import world
from lookahead.config import Checkpoints


@pytest.fixture(scope="module")
def pipeline(tiny_world: Checkpoints) -> world.Pipeline:
    """The base with the fast child (off) and the untuned adapter."""
    pipe = world.open_pipeline(tiny_world)
    world.attach_fast_child(pipe, tiny_world)
    world.attach_adapter(pipe, tiny_world)
    return pipe
