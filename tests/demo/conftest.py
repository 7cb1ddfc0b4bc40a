"""The tiny world of the pipeline's tests, for the page."""

from tests.pipeline.conftest import encoder, photos, portraits, settings, world  # noqa: F401  (fixtures)
